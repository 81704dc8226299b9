#include "offload/plan/kv_store.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <optional>
#include <utility>

#include "core/error.h"

namespace sluice::plan {
namespace {

enum Kind : uint32_t { key, value };

// One page of one kind. `pin` is held as long as it is in memory for good or for the current step.
struct Page {
  BlockId block;
  tier::Pin pin;
  bool kept = false;  // counted among the full pages that stay
};

struct Layer {
  std::array<std::vector<Page>, 2> pages;    // by kind
  std::array<std::byte**, 2> pointers = {};  // what KvSpans refer to; never moves
  size_t pool = 0;
};

struct Sequence {
  uint32_t length = 0;   // tokens that count
  uint32_t pending = 0;  // announced by begin_step
  std::vector<Layer> layers;
};

// Pages that will be written out when the kernels that use them have ended.
struct Leaving {
  BlockId block;
  TierId tier;
  tier::Pin pin;
  Event after;
};

}  // namespace

struct KvStore::Impl {
  Impl(tier::TierManager& t, const Options& o)
      : tiers(t), opt(o), tables(o.tables), n_kept(o.pools.size(), 0), sequences(o.max_sequences) {
    max_pages = static_cast<uint32_t>(div_up(o.context, o.page_tokens));
    const uint64_t of_sequences = uint64_t{o.max_sequences} * o.layer_pool.size() * 2 * max_pages;
    if (tables == nullptr) {
      own_tables.resize(of_sequences + 4 * staged_pages);
      tables = own_tables.data();
    }
    staged_tables = tables + of_sequences;
  }

  tier::TierManager& tiers;
  const Options opt;
  uint32_t max_pages;
  std::byte** tables;
  std::byte** staged_tables;  // by set, kind and page
  std::vector<std::byte*> own_tables;
  std::vector<Page> staged;      // likewise, of one pool
  std::vector<uint32_t> n_kept;  // by pool
  std::vector<std::optional<Sequence>> sequences;
  std::deque<Leaving> leaving;
  Status refused;  // why a page could not leave, since somebody began to want room

  Sequence* find(SequenceId id) {
    return id.value < sequences.size() && sequences[id.value] ? &*sequences[id.value] : nullptr;
  }
  Status unknown(SequenceId id) const { return error(Code::invalid_argument, "there is no sequence {}", id.value); }

  Result<SequenceId> create() {
    for (uint32_t i = 0; i < sequences.size(); ++i) {
      if (sequences[i]) continue;
      sequences[i].emplace();
      const size_t n_layers = opt.layer_pool.size();
      sequences[i]->layers.resize(n_layers);
      std::byte** table = tables + i * n_layers * 2 * max_pages;
      for (size_t l = 0; l < n_layers; ++l) {
        Layer& layer = sequences[i]->layers[l];
        layer.pool = opt.layer_pool[l];
        for (const Kind kind : {key, value}) {
          layer.pages[kind].reserve(max_pages);
          layer.pointers[kind] = table;
          std::fill_n(table, max_pages, nullptr);
          table += max_pages;
        }
      }
      return SequenceId{i};
    }
    return error(Code::over_budget, "all {} sequences are in use", sequences.size());
  }

  // --- memory --------------------------------------------------------------------------------------

  // Sends the oldest leaving page out, waiting for the kernels that use it. A copy that cannot be written
  // stays, and is tried again when it is next attended to.
  void let_go() {
    Leaving page = std::move(leaving.front());
    leaving.pop_front();
    page.after.wait().ignore();
    page.pin.release();
    if (Status status = tiers.evict(page.block, page.tier); !status.ok()) refused = status;
  }
  void let_go_of_ended() {
    while (!leaving.empty() && leaving.front().after.done()) let_go();
  }

  // The pool of a page.
  size_t pool_of(const Layer& layer, uint32_t index) const { return index < opt.near_pages ? layer.pool : 0; }
  const Pool& pool(const Layer& layer, uint32_t index) const { return opt.pools[pool_of(layer, index)]; }
  TierId tier(const Layer& layer, uint32_t index) const { return pool(layer, index).tier; }
  bool any_may_leave(const Layer& layer) const {
    return pool(layer, 0).group_pages != 0 || pool(layer, max_pages - 1).group_pages != 0;
  }

  // Runs `attempt` until it no longer fails for want of memory, or nothing more can become free.
  template <class F>
  Status with_room(TierId tier, F attempt) {
    refused = {};
    let_go_of_ended();
    tiers.poll();
    for (;;) {
      Status status = attempt();
      if (status.code() != Code::over_budget) return status;
      if (!leaving.empty()) {
        let_go();
      } else {
        const Event next = tiers.pending(tier);
        if (next == Event() && !tiers.poll()) return refused.ok() ? status : refused;
        next.wait().ignore();
      }
      tiers.poll();
    }
  }

  Result<Page> new_page(TierId to) {
    SLUICE_ASSIGN_OR_RETURN(const BlockId block, tiers.add_block(BlockKind::kv_page, opt.page_bytes));
    Page page{block, {}, false};
    const Status status = with_room(to, [&]() -> Status {
      SLUICE_ASSIGN_OR_RETURN(page.pin, tiers.create(block, to));
      return {};
    });
    if (status.ok()) return page;
    tiers.drop(block);
    return status.with_context("KV cache");
  }

  Status create_page(Layer& layer, Kind kind) {
    const size_t index = layer.pages[kind].size();
    SLUICE_ASSIGN_OR_RETURN(Page page, new_page(tier(layer, static_cast<uint32_t>(index))));
    layer.pointers[kind][index] = page.pin.data();
    layer.pages[kind].push_back(std::move(page));
    return {};
  }

  // It no longer counts among the full pages that stay.
  void stays_no_more(const Layer& layer, Page& page, uint32_t index) {
    if (std::exchange(page.kept, false)) --n_kept[pool_of(layer, index)];
  }

  void drop_page(Layer& layer, Kind kind) {
    Page& page = layer.pages[kind].back();
    stays_no_more(layer, page, static_cast<uint32_t>(layer.pages[kind].size() - 1));
    page.pin.release();
    tiers.drop(page.block);
    layer.pages[kind].pop_back();
  }

  // --- bringing back ---------------------------------------------------------------------------------

  Status bring_page(Layer& layer, Kind kind, uint32_t index, std::vector<Event>& ready) {
    Page& page = layer.pages[kind][index];
    if (page.pin && page.pin.ready().status().ok()) {
      if (!page.pin.ready().done()) ready.push_back(page.pin.ready());
      return {};
    }
    page.pin.release();  // of a read that failed: once more
    const TierId to = tier(layer, index);
    SLUICE_RETURN_IF_ERROR(with_room(to, [&] { return tiers.fetch(page.block, to); }).with_context("KV cache"));
    SLUICE_ASSIGN_OR_RETURN(page.pin, tiers.pin(page.block, to));
    layer.pointers[kind][index] = page.pin.data();
    ready.push_back(page.pin.ready());
    return {};
  }

  // Gives up pages whose read failed, so that any sequence that shares them can read them again. A read that nobody got
  // to wait for may still be under way.
  void drop_failed(Sequence& s) {
    for (Layer& layer : s.layers)
      for (const Kind kind : {key, value})
        for (Page& page : layer.pages[kind])
          if (page.pin && !page.pin.ready().wait().ok()) page.pin.release();
  }

  Status bring_now(Layer& layer, Kind kind, uint32_t index) {
    std::vector<Event> ready;
    SLUICE_RETURN_IF_ERROR(bring_page(layer, kind, index, ready));
    for (const Event& event : ready) SLUICE_RETURN_IF_ERROR(event.wait());
    return {};
  }

  // A page that is about to be written: in memory, and not shared.
  Status make_writable(Layer& layer, Kind kind, uint32_t index) {
    SLUICE_RETURN_IF_ERROR(bring_now(layer, kind, index));
    Page& page = layer.pages[kind][index];
    stays_no_more(layer, page, index);
    if (tiers.references(page.block) > 1) return copy_shared(layer, kind, index);
    page.pin.mark_dirty();
    return {};
  }

  // A whole page, within a tier. No kernel is running on it.
  Status copy_now(const Pool& pool, std::byte* to, const std::byte* from) {
    CopyQueue* queue = pool.copies;
    if (queue == nullptr) {
      std::memcpy(to, from, opt.page_bytes);
      return {};
    }
    queue->copy(to, from, opt.page_bytes);
    return ended(*queue);
  }
  static Status ended(CopyQueue& queue) {
    Status status = queue.signal().wait();
    if (!status.ok()) queue.reset();
    return status;
  }

  Status copy_shared(Layer& layer, Kind kind, uint32_t index) {
    SLUICE_ASSIGN_OR_RETURN(Page copy, new_page(tier(layer, index)));
    Page& page = layer.pages[kind][index];
    const Status status = copy_now(pool(layer, index), copy.pin.data(), page.pin.data());
    Page& useless = status.ok() ? page : copy;
    useless.pin.release();
    tiers.drop(useless.block);
    if (!status.ok()) return status.with_context("KV cache");
    page = std::move(copy);
    layer.pointers[kind][index] = page.pin.data();
    return {};
  }

  // --- passing through an accelerator's memory ---------------------------------------------------------

  static uint32_t staged_at(uint32_t set, Kind kind, uint32_t i) { return (set * 2 + kind) * staged_pages + i; }

  Status make_staging(TierId to) {
    while (staged.size() < 4 * staged_pages) {
      SLUICE_ASSIGN_OR_RETURN(Page page, new_page(to));
      staged_tables[staged.size()] = page.pin.data();
      staged.push_back(std::move(page));
    }
    return {};
  }
  void drop_staging() {
    for (Page& page : staged) {
      page.pin.release();
      tiers.drop(page.block);
    }
    staged.clear();
  }

  // Copies that a step has left behind failed with it, perhaps.
  void let_queues_work() {
    for (const Pool& p : opt.pools)
      if (p.copies != nullptr) ended(*p.copies).ignore();
  }

  // --- leaving -----------------------------------------------------------------------------------------

  // A full page either stays for good or goes once `after` has signalled.
  void settle_page(Layer& layer, Kind kind, uint32_t index, const Event& after) {
    Page& page = layer.pages[kind][index];
    if (page.kept || !page.pin) return;
    const size_t in = pool_of(layer, index);
    if (n_kept[in] < opt.pools[in].kept_pages) {
      page.kept = true;
      ++n_kept[in];
      return;
    }
    leaving.push_back({page.block, opt.pools[in].tier, std::move(page.pin), after});
    page.pin = {};
  }

  // Whatever can be read, no page beyond the first n tokens stays: a later step would take it for its own.
  Status cut_to(Sequence& s, uint32_t n) {
    const auto n_pages = static_cast<uint32_t>(div_up(n, opt.page_tokens));
    while (!leaving.empty()) let_go();
    Status first_failure;
    for (Layer& layer : s.layers)
      for (const Kind kind : {key, value}) {
        while (layer.pages[kind].size() > n_pages) drop_page(layer, kind);
        // The last page will be written again: it has to be in memory and no longer counts as full.
        if (n % opt.page_tokens == 0 || layer.pages[kind].empty()) continue;
        if (Status status = reopen(layer, kind, n_pages - 1); first_failure.ok()) first_failure = std::move(status);
      }
    return first_failure;
  }
  Status reopen(Layer& layer, Kind kind, uint32_t index) {
    SLUICE_RETURN_IF_ERROR(bring_now(layer, kind, index));
    stays_no_more(layer, layer.pages[kind][index], index);
    return {};
  }

  // The values of one cell are a run of head_dim for each kv head, page_tokens runs apart. Cells move towards the
  // begin, and so from the host's pool to another one, never back.
  void move_cell(Layer& layer, Kind kind, uint32_t from, uint32_t to) {
    const uint32_t per = opt.page_tokens;
    const uint64_t run = opt.page_bytes / (uint64_t{opt.n_kv_heads} * per);
    const std::byte* source = layer.pages[kind][from / per].pin.data();
    std::byte* target = layer.pages[kind][to / per].pin.data();
    CopyQueue* queue = pool(layer, to / per).copies;
    for (uint64_t head = 0; head < opt.n_kv_heads; ++head) {
      std::byte* out = target + (head * per + to % per) * run;
      const std::byte* in = source + (head * per + from % per) * run;
      if (queue == nullptr) std::memcpy(out, in, run);
      else queue->copy(out, in, run);
    }
  }

  // Those that a queue moves, or those that stay in the host's memory: these wait, lest they write over what the queue
  // still reads there.
  void move_cells(Sequence& s, uint32_t base, const std::vector<uint32_t>& cells, bool by_queue) {
    for (Layer& layer : s.layers)
      for (const Kind kind : {key, value})
        for (uint32_t i = 0; i < cells.size(); ++i) {
          const uint32_t to = base + i;
          if (cells[i] == to || (pool(layer, to / opt.page_tokens).copies != nullptr) != by_queue) continue;
          move_cell(layer, kind, cells[i], to);
        }
  }

  Status commit(Sequence& s, uint32_t base, const std::vector<uint32_t>& cells) {
    for (size_t i = 0; i < cells.size(); ++i)
      if (cells[i] >= s.length || cells[i] < base + i || (i > 0 && cells[i] <= cells[i - 1]))
        return error(Code::invalid_argument, "cell {} cannot be kept as token {} of {}", cells[i], base + i, s.length);
    for (Layer& layer : s.layers)
      for (const Kind kind : {key, value}) {
        for (uint32_t p = base / opt.page_tokens; p < layer.pages[kind].size(); ++p)
          SLUICE_RETURN_IF_ERROR(make_writable(layer, kind, p));
      }
    // From here on nothing fails but a device that is lost: a path is moved in all layers or in none.
    move_cells(s, base, cells, true);
    for (const Pool& p : opt.pools)
      if (p.copies != nullptr) SLUICE_RETURN_IF_ERROR(ended(*p.copies));
    move_cells(s, base, cells, false);
    return {};
  }
};

KvStore::Options KvStore::options_of(const Graph& g, const Plan& plan) {
  Options options;
  options.layer_pool = plan.numerics.kv_site;
  options.near_pages = plan.numerics.near_pages;
  options.n_kv_heads = g.n_kv_heads;
  options.page_tokens = plan.numerics.page_tokens;
  options.page_bytes = plan.numerics.page_tokens * g.kv_values() * kv_bytes(plan.numerics.kv_type);
  options.context = plan.context;
  options.max_sequences = plan.workspace.sequences;
  return options;
}

KvStore::KvStore(tier::TierManager& tiers, const Options& options) : impl_(std::make_unique<Impl>(tiers, options)) {}

KvStore::~KvStore() {
  for (uint32_t i = 0; i < impl_->sequences.size(); ++i) destroy(SequenceId{i});
  impl_->drop_staging();
}

Result<SequenceId> KvStore::create() { return impl_->create(); }

Result<SequenceId> KvStore::fork(SequenceId id) {
  Sequence* from = impl_->find(id);
  if (from == nullptr) return impl_->unknown(id);
  while (!impl_->leaving.empty()) impl_->let_go();
  SLUICE_ASSIGN_OR_RETURN(const SequenceId copy_id, impl_->create());
  Sequence& to = *impl_->find(copy_id);
  from = impl_->find(id);
  to.length = from->length;
  for (size_t l = 0; l < impl_->opt.layer_pool.size(); ++l)
    for (const Kind kind : {key, value})
      for (uint32_t p = 0; p < from->layers[l].pages[kind].size(); ++p) {
        const Page& page = from->layers[l].pages[kind][p];
        impl_->tiers.share(page.block);
        Page shared{page.block, {}, false};
        if (page.pin) {
          auto pin = impl_->tiers.pin(page.block, impl_->tier(from->layers[l], p));
          if (pin.ok()) shared.pin = std::move(*pin);
        }
        to.layers[l].pointers[kind][p] = shared.pin ? shared.pin.data() : nullptr;
        to.layers[l].pages[kind].push_back(std::move(shared));
      }
  return copy_id;
}

void KvStore::destroy(SequenceId id) {
  Sequence* s = impl_->find(id);
  if (s == nullptr) return;
  while (!impl_->leaving.empty()) impl_->let_go();
  for (Layer& layer : s->layers)
    for (const Kind kind : {key, value})
      while (!layer.pages[kind].empty()) impl_->drop_page(layer, kind);
  impl_->sequences[id.value].reset();
  impl_->tiers.poll();
}

Result<uint32_t> KvStore::length(SequenceId id) const {
  const Sequence* s = impl_->find(id);
  if (s == nullptr) return impl_->unknown(id);
  return s->length;
}

Status KvStore::truncate(SequenceId id, uint32_t n) {
  Sequence* s = impl_->find(id);
  if (s == nullptr) return impl_->unknown(id);
  if (n > s->length)
    return error(Code::invalid_argument, "cannot truncate sequence {} of {} tokens to {}", id.value, s->length, n);
  s->length = n;
  return impl_->cut_to(*s, n);
}

Status KvStore::commit(SequenceId id, uint32_t base, const std::vector<uint32_t>& cells) {
  Sequence* s = impl_->find(id);
  if (s == nullptr) return impl_->unknown(id);
  while (!impl_->leaving.empty()) impl_->let_go();
  SLUICE_RETURN_IF_ERROR(impl_->commit(*s, base, cells));
  return truncate(id, base + static_cast<uint32_t>(cells.size()));
}

Status KvStore::begin_step(SequenceId id, uint32_t n) {
  Sequence* s = impl_->find(id);
  if (s == nullptr) return impl_->unknown(id);
  if (n > impl_->opt.context - s->length)
    return error(Code::invalid_argument, "sequence {} holds {} tokens and gets {} more, but the context is {}",
                 id.value, s->length, n, impl_->opt.context);
  if (s->length % impl_->opt.page_tokens != 0)
    for (Layer& layer : s->layers)
      for (const Kind kind : {key, value})
        SLUICE_RETURN_IF_ERROR(impl_->make_writable(layer, kind, s->length / impl_->opt.page_tokens));
  s->pending = n;
  return {};
}

void KvStore::end_step(SequenceId id, bool keep) {
  Sequence* s = impl_->find(id);
  if (s == nullptr) return;
  if (keep) s->length += s->pending;
  s->pending = 0;
  if (keep) return;
  impl_->let_queues_work();
  impl_->drop_failed(*s);
  impl_->cut_to(*s, s->length).ignore();  // a page that cannot be read is met again by the next step
}

Status KvStore::make_room(SequenceId id, uint32_t layer_index) {
  Sequence& s = *impl_->find(id);
  Layer& layer = s.layers[layer_index];
  for (const Kind kind : {key, value})
    while (layer.pages[kind].size() < n_pages(id)) SLUICE_RETURN_IF_ERROR(impl_->create_page(layer, kind));
  return {};
}

uint32_t KvStore::n_pages(SequenceId id) const {
  const Sequence& s = *impl_->find(id);
  return static_cast<uint32_t>(div_up(s.length + s.pending, impl_->opt.page_tokens));
}

bool KvStore::any_spilled(SequenceId id, uint32_t layer_index) const {
  const Layer& layer = impl_->find(id)->layers[layer_index];
  return std::any_of(layer.pages[key].begin(), layer.pages[key].end(), [](const Page& p) { return !p.pin; }) ||
         std::any_of(layer.pages[value].begin(), layer.pages[value].end(), [](const Page& p) { return !p.pin; });
}

KvSpan KvStore::span(SequenceId id, uint32_t layer_index, uint32_t first, uint32_t n) {
  Sequence& s = *impl_->find(id);
  Layer& layer = s.layers[layer_index];
  const uint32_t total = n_pages(id);
  const uint32_t end = std::min(first + n, total);
  const uint32_t count = end > first ? end - first : 0;
  return {layer.pointers[key] + first, layer.pointers[value] + first, first, count, s.length};
}

Status KvStore::bring(SequenceId id, uint32_t layer_index, uint32_t first, uint32_t n, std::vector<Event>& ready) {
  Layer& layer = impl_->find(id)->layers[layer_index];
  const uint32_t end = std::min(first + n, n_pages(id));
  for (uint32_t p = first; p < end; ++p)
    for (const Kind kind : {key, value}) SLUICE_RETURN_IF_ERROR(impl_->bring_page(layer, kind, p, ready));
  return {};
}

Status KvStore::stage(SequenceId id, uint32_t layer_index, uint32_t first, uint32_t n, uint32_t set,
                      std::span<const Event> after, Event& copied) {
  Layer& layer = impl_->find(id)->layers[layer_index];
  const Pool& pool = impl_->pool(layer, 0);
  SLUICE_RETURN_IF_ERROR(impl_->make_staging(pool.tier));
  for (const Event& event : after) pool.copies->wait(event);
  for (uint32_t i = 0; i < n; ++i)
    for (const Kind kind : {key, value})
      pool.copies->copy(impl_->staged_tables[Impl::staged_at(set, kind, i)], layer.pointers[kind][first + i],
                        impl_->opt.page_bytes);
  copied = pool.copies->signal();
  return {};
}

KvSpan KvStore::staged_span(SequenceId id, uint32_t first, uint32_t n, uint32_t set) const {
  const auto at = [&](Kind kind) { return impl_->staged_tables + Impl::staged_at(set, kind, 0); };
  return {at(key), at(value), first, n, impl_->find(id)->length};
}

void KvStore::release(SequenceId id, uint32_t layer_index, uint32_t first, uint32_t n, const Event& after) {
  Layer& layer = impl_->find(id)->layers[layer_index];
  Sequence& s = *impl_->find(id);
  const uint32_t full = (s.length + s.pending) / impl_->opt.page_tokens;
  const uint32_t end = std::min(first + n, full);
  if (!impl_->any_may_leave(layer)) return;
  for (uint32_t p = first; p < end; ++p) {
    if (impl_->pool(layer, p).group_pages == 0) continue;  // nothing ever leaves
    for (const Kind kind : {key, value}) impl_->settle_page(layer, kind, p, after);
  }
}

void KvStore::settle(SequenceId id, uint32_t layer_index, const Event& after) {
  release(id, layer_index, 0, n_pages(id), after);
  impl_->let_go_of_ended();
}

}  // namespace sluice::plan
