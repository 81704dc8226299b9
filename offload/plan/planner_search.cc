#include "offload/plan/planner_search.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace sluice::plan {
namespace {

constexpr double impossible = std::numeric_limits<double>::infinity();

// `count` of n, evenly.
std::vector<bool> spread(uint32_t count, uint32_t n) {
  std::vector<bool> chosen(n, false);
  for (uint32_t i = 0; i < n; ++i) chosen[i] = uint64_t{i + 1} * count / n > uint64_t{i} * count / n;
  return chosen;
}

// `count` of all: first, evenly, those of `first`, then of the others.
std::vector<bool> spread_over(uint32_t count, const std::vector<bool>& first) {
  const auto n = static_cast<uint32_t>(first.size());
  const auto n_first = static_cast<uint32_t>(std::count(first.begin(), first.end(), true));
  const uint32_t from_first = std::min(count, n_first);
  const auto a = spread(from_first, n_first), b = spread(count - from_first, n - n_first);
  std::vector<bool> chosen(n);
  uint32_t i_first = 0, i_other = 0;
  for (uint32_t i = 0; i < n; ++i) chosen[i] = first[i] ? a[i_first++] : b[i_other++];
  return chosen;
}

// 0..n-1, such that those at the begin of the order lie far from one another: what is moved one by one stays spread.
std::vector<uint32_t> far_apart(uint32_t n) {
  std::vector<uint32_t> order;
  const uint32_t places = std::bit_ceil(std::max(1u, n));
  for (uint32_t i = 0; i < places; ++i) {
    uint32_t reversed = 0;
    for (uint32_t bit = 1, mirrored = places / 2; bit < places; bit *= 2, mirrored /= 2)
      if ((i & bit) != 0) reversed |= mirrored;
    if (reversed < n) order.push_back(reversed);
  }
  return order;
}

// 0, 1/parts, 2/parts, … of n.
std::vector<uint32_t> shares(uint32_t n, uint32_t parts) {
  std::vector<uint32_t> out;
  for (uint32_t i = 0; i <= parts; ++i) out.push_back(n * i / parts);
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

}  // namespace

Search::Search(const Graph& graph, const Machine& machine, const PlanRequest& request, const WeightMap& weights,
               uint32_t step_tokens)
    : g_(graph), r_(request), machine_(machine), shell_(plan_shell(graph, machine, request, step_tokens)) {
  shell_.movement.weights = weights;
  typical_ = typical_request(r_.context, r_.depth, r_.prompt);
  prompt_step_ = std::min(step_tokens, typical_.prompt);
  lane_ = link_lane(machine, r_.accelerators.front().device);
  find_layers();
  tabulate(machine);
}

void Search::find_layers() {
  layers_.resize(g_.n_layers);
  uint32_t layer = 0;
  for (uint32_t i = 0; i < g_.ops.size(); ++i) {
    const Op& op = g_.ops[i];
    if (const auto* in = std::get_if<AttentionInOp>(&op)) layer = in->layer;
    if (i == 0 || i + 1 == g_.ops.size()) continue;
    Layer& l = layers_[layer];
    if (std::holds_alternative<AttentionInOp>(op)) l.in = i;
    if (std::holds_alternative<AttentionOp>(op)) l.attention = i;
    if (std::holds_alternative<AttentionOutOp>(op)) l.out = i;
    if (std::holds_alternative<FfnOp>(op)) l.ffn = i, l.rows = split_rows(g_, shell_.movement.weights, i);
  }
}

void Search::tabulate(const Machine& machine) {
  const uint32_t middle = prompt_depth();
  for (uint8_t site = 0; site < 2; ++site) {
    decode_[site] = op_costs(g_, machine, shell_, site, 1, typical_.depth);
    prompt_[site] = op_costs(g_, machine, shell_, site, prompt_step_, middle);
  }
  Plan shell = shell_;
  shell.numerics.decode.op_site.front() = accelerator_site;  // so that both sites compute
  for (const bool far : {false, true}) {
    shell.workspace.far_pages = far;
    for (const uint8_t site : {host_site, accelerator_site}) workspace_[far][site] = workspace_bytes(g_, shell, site);
    lent_[far] = lent_bytes(g_, shell, accelerator_site);
    tables_[far] = table_bytes(g_, shell);
  }
  bytes_.assign(g_.ops.size(), 0);
  for (const WeightBlock& b : shell_.movement.weights.blocks) {
    if (b.role == BlockRole::vector) vectors_ += b.slot_bytes;
    if (b.role != BlockRole::matrix) continue;
    bytes_[b.first_op] += static_cast<double>(b.slot_bytes);
    weights_ += static_cast<double>(b.slot_bytes);
  }
  divisible_.assign(g_.ops.size(), 0);
  for (const Layer& l : layers_)
    if (const auto* ffn = std::get_if<FfnOp>(&g_.ops[l.ffn]))
      divisible_[l.ffn] = static_cast<double>(g_.tensor(ffn->gate).extent.bytes + g_.tensor(ffn->up).extent.bytes);
  largest_ = largest_block(shell_.movement.weights);
}

// Seconds of the typical request.
double Search::weigh(const Places& places, uint64_t ahead_bytes) const {
  const auto kv = kv_sites(g_, places.decode);
  const auto at_host = static_cast<uint32_t>(std::count(kv.begin(), kv.end(), host_site));
  const double page = static_cast<double>(shell_.movement.page_slot_bytes);
  const uint32_t others = g_.n_layers - at_host, near = std::min(places.near_pages, shell_.movement.pages_per_sequence);
  const bool far = others > 0 && near < shell_.movement.pages_per_sequence;

  // The accelerator's memory
  double decode_bytes = 0, all_bytes = 0, pinned_bytes = 0;
  for (size_t i = 0; i < bytes_.size(); ++i) {
    const double decodes = bytes_at_accelerator(places.decode, i), prompts = bytes_at_accelerator(places.prompt, i);
    decode_bytes += decodes;
    pinned_bytes += !r_.pinned.empty() && r_.pinned[i] == accelerator_site ? bytes_[i] : 0;
    all_bytes += std::max(decodes, prompts);
  }
  const auto uses = [&](uint8_t site) { return places.decode.computes(site) || places.prompt.computes(site); };
  if (!uses(accelerator_site)) return impossible;  // a plan for the CPU alone is another matter
  double vram = free_vram(far) - 2.0 * r_.sequences * near * page * others;
  const bool streams = all_bytes > vram;
  if (streams) vram -= static_cast<double>(staging_for(ahead_bytes, largest_));
  if (vram < pinned_bytes) return impossible;
  const bool is_large = shell_.movement.is_large(prompt_step_);
  const double kept = std::min(decode_bytes, vram + (streams ? static_cast<double>(lent_[far]) : 0));
  const double lent = std::max(0.0, kept - vram), prompt_kept = std::min(all_bytes, vram) - (kept - lent);

  // The host's
  const HostKv host = host_kv(r_, at_host, others, near, shell_.workspace.tokens);
  const bool host_computes = uses(host_site) || far;
  double ram = static_cast<double>(r_.ram_budget) - static_cast<double>(total(r_.fixed)) -
               static_cast<double>(tables_[far] + (host_computes ? workspace_[far][host_site] + vectors_ : 0) +
                                   passing_bytes(largest_));
  const double wanted = weights_ - (kept - lent) - prompt_kept;
  double kv_pages = static_cast<double>(host.whole);
  if (ram < kv_pages * page + wanted) ram -= static_cast<double>(staging_for(host_ahead(r_.ram_budget), largest_));
  if (ram < kv_pages * page) kv_pages = std::max(ram / 2 / page, static_cast<double>(host.least));
  ram -= kv_pages * page;
  if (ram < 0) return impossible;
  const double from_disk = std::max(0.0, wanted - ram);
  const uint32_t deep = typical_.depth / r_.page_tokens;
  const double held = 2.0 * (at_host * deep + others * (deep - std::min(deep, near)));
  const double spilled = kv_pages < static_cast<double>(host.whole) ? std::max(0.0, held - kv_pages) * page : 0;

  LinkLane lane = lane_;
  lane.ahead_bytes = static_cast<double>(ahead_bytes);
  const auto seconds = [&](bool prompt) {
    const Placement& placement = prompt ? places.prompt : places.decode;
    const auto& costs = prompt ? prompt_ : decode_;
    const double stays = prompt && is_large ? kept - lent : kept;
    const double of_decode = decode_bytes > 0 ? 1 - stays / decode_bytes : 0;
    const double rest = all_bytes - decode_bytes, of_rest = rest > 0 ? 1 - prompt_kept / rest : 0;
    const uint64_t near_tokens = uint64_t{near} * r_.page_tokens;
    const double share = prompt ? 1 : near_share(near_tokens, typical_.depth, 1);
    std::vector<OpCost>& ops = weighed_;
    ops.resize(g_.ops.size());
    const bool passes = of_decode > 0 || of_rest > 0;
    for (size_t i = 0; i < ops.size(); ++i) {
      ops[i] = placed_cost(g_, placement, i, costs, share);
      const double there = passes ? bytes_at_accelerator(placement, i) : 0;
      if (there == 0) continue;
      const double decodes = prompt ? std::min(there, bytes_at_accelerator(places.decode, i)) : there;
      ops[i].link_bytes = decodes * of_decode + (there - decodes) * of_rest;
    }
    add_hand_overs(g_, placement, lane, prompt ? prompt_step_ : 1, share < 1, ops);
    if (prompt) add_staged(g_, shell_, placement, lane, near_tokens, prompt_step_, prompt_depth(), ops);
    StepCost cost = pass_cost(ops, lane);
    add_disk(machine_, (prompt && is_large ? from_disk : std::max(0.0, from_disk - lent)) + spilled, cost);
    return cost.seconds();
  };
  const double returns = is_large ? return_seconds(machine_, lane_, lent, std::min(lent, from_disk)) : 0;
  return typical_.answer * seconds(false) + seconds(true) * typical_.prompt / prompt_step_ + returns;
}

// What the accelerator has for KV, weights and staging.
double Search::free_vram(bool far) const {
  const AcceleratorRequest& accelerator = r_.accelerators.front();
  return static_cast<double>(accelerator.budget) - static_cast<double>(total(accelerator.fixed)) -
         static_cast<double>(accelerator.scratch_bytes + vectors_ + workspace_[far][accelerator_site]) -
         (far ? 4.0 * staged_pages * static_cast<double>(shell_.movement.page_slot_bytes) : 0);
}

// How many pages of a sequence, but not all, may lie with the accelerator, of layers that it attends to: as many as fit
// beside its weights, or some eighths. None where KV is a small matter, or somebody wants it there.
std::vector<uint32_t> Search::near_choices(const Places& places) const {
  std::vector<uint32_t> choices;
  const auto kv = kv_sites(g_, places.decode);
  const auto layers = static_cast<double>(std::count(kv.begin(), kv.end(), accelerator_site));
  const double of_page = 2.0 * layers * r_.sequences * static_cast<double>(shell_.movement.page_slot_bytes);
  const uint32_t pages = shell_.movement.pages_per_sequence;
  const double vram = free_vram(true);
  if (kv_is_pinned() || layers == 0 || of_page * pages < vram / 32) return choices;
  double weights = 0;
  for (size_t i = 0; i < bytes_.size(); ++i) weights += bytes_at_accelerator(places.decode, i);
  for (const uint32_t near : shares(pages, 8))
    if (near > 0 && near < pages && near * of_page < vram) choices.push_back(near);
  const double beside = (vram - weights) / of_page;
  if (beside >= 1 && beside < pages) choices.push_back(static_cast<uint32_t>(beside));
  return choices;
}

bool Search::kv_is_pinned() const {
  for (size_t i = 0; i < r_.pinned.size(); ++i)
    if (r_.pinned[i] == accelerator_site && std::holds_alternative<AttentionOp>(g_.ops[i])) return true;
  return false;
}

// Slots of the weights of an op that the accelerator computes with.
double Search::bytes_at_accelerator(const Placement& placement, size_t op) const {
  const bool home = placement.op_site[op] == accelerator_site;
  const Split split = placement.split(op);
  if (split.row == 0) return home ? bytes_[op] : 0;
  const double before = divisible_[op] * split.row / divided_rows(g_, op);
  return home ? bytes_[op] - divisible_[op] + before : divisible_[op] - before;
}

void Search::place_prompt(Places& p, bool streamed) const {
  pin(r_, p);
  p.decode.op_site.front() = p.decode.op_site[1];
  p.prompt = p.decode;
  if (!streamed) return;
  p.prompt.splits.clear();
  for (size_t i = 0; i < g_.ops.size(); ++i)
    if (!std::holds_alternative<AttentionOp>(g_.ops[i])) p.prompt.op_site[i] = accelerator_site;
}

// A prompt streams through the accelerator what it does not hold, or is computed where decoding is: whichever is
// faster.
void Search::settle(Found& found) const {
  found.seconds = impossible;
  for (const bool streamed : {false, true}) {
    Places places = found.places;
    place_prompt(places, streamed);
    const double seconds = weigh(places, found.ahead_bytes);
    if (!(seconds < found.seconds)) continue;
    found.places = places;
    found.prompt_streams = streamed;
    found.seconds = seconds;
  }
}

Places Search::places_of(const Counts& c) const {
  const auto n = static_cast<uint32_t>(layers_.size());
  std::vector<bool> kv(n), attention(n), ffn(n);
  for (uint32_t i = 0; i < n; ++i) kv[i] = i + c.kv >= n, attention[i] = i + c.attention >= n, ffn[i] = i + c.ffn >= n;
  if (!c.at_the_end) kv = spread(c.kv, n), attention = spread_over(c.attention, kv), ffn = spread(c.ffn, n);
  Places places;
  places.decode.op_site.assign(g_.ops.size(), accelerator_site);
  places.prompt = places.decode;
  auto& site = places.decode.op_site;
  for (uint32_t i = 0; i < n; ++i) {
    if (kv[i]) site[layers_[i].attention] = host_site;
    if (attention[i]) site[layers_[i].in] = site[layers_[i].out] = host_site;
    if (ffn[i]) site[layers_[i].ffn] = host_site;
  }
  if (c.head_at_host) site.back() = host_site;
  return places;
}

// The least keeps several reads of the disk under way, where it is the disk that feeds the link.
std::vector<uint64_t> Search::distances() const {
  std::vector<uint64_t> out;
  const uint64_t budget = r_.accelerators.front().budget, most = budget / 6;
  for (uint64_t ahead = std::max(largest_, std::min(64 * MiB, align_down(budget / 64, io_unit)));
       out.empty() || ahead <= most; ahead *= 2)
    out.push_back(ahead);
  return out;
}

std::vector<Found> Search::families(Kv lying) const {
  const auto n = static_cast<uint32_t>(layers_.size());
  std::vector<Counts> all;
  for (const bool head : {false, true}) {
    for (const uint32_t kv : shares(n, 4))
      for (const uint32_t attention : shares(n, 4))
        for (const uint32_t ffn : shares(n, 8)) all.push_back({kv, attention, ffn, head, false});
    for (const uint32_t k : shares(n, 16)) all.push_back({k, k, k, head, true});
  }
  std::vector<Found> found;
  const auto ahead = distances();
  for (const Counts& c : all) {
    Places places = places_of(c);
    std::vector<uint32_t> choices = {all_pages};
    if (lying == Kv::parted) choices = c.kv == 0 ? near_choices(places) : std::vector<uint32_t>();
    for (const uint32_t near : choices)
      for (const uint64_t distance : {ahead[ahead.size() / 2], ahead.front()}) {
        places.near_pages = near;
        Found f{places, distance, 0};
        settle(f);
        if (f.seconds < impossible) found.push_back(std::move(f));
      }
  }
  std::stable_sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.seconds < b.seconds; });
  return found;
}

bool Search::try_move(Found& best, std::initializer_list<uint32_t> ops, uint8_t site) const {
  const Placement& now = best.places.decode;
  const auto there = [&](uint32_t op) { return now.op_site[op] == site && now.split(op).row == 0; };
  if (std::all_of(ops.begin(), ops.end(), there)) return false;
  Places places = best.places;
  for (const uint32_t op : ops) {
    places.decode.op_site[op] = site;
    if (!places.decode.splits.empty()) places.decode.splits[op] = {};
  }
  return try_places(best, std::move(places));
}

// Where decoding is as it is there, and prompts follow.
bool Search::try_places(Found& best, Places places) const {
  place_prompt(places, best.prompt_streams);
  const double seconds = weigh(places, best.ahead_bytes);
  if (!(seconds < best.seconds * (1 - least_gain))) return false;
  best.places = std::move(places);
  best.seconds = seconds;
  return true;
}

// Moves layers, sub-layers and single ops while that helps.
std::optional<Found> Search::improve(Found best, int rounds) const {
  const std::vector<uint32_t> order = far_apart(static_cast<uint32_t>(layers_.size()));
  settle(best);
  for (int round = 0; round < rounds; ++round) {
    const double before = best.seconds;
    for (const uint64_t ahead : distances()) {
      Found next = best;
      next.ahead_bytes = ahead;
      settle(next);
      if (next.seconds < best.seconds) best = std::move(next);
    }
    for (const uint32_t near : best.parted() ? near_choices(best.places) : std::vector<uint32_t>()) {
      Found next = best;
      next.places.near_pages = near;
      settle(next);
      if (next.seconds < best.seconds * (1 - least_gain)) best = std::move(next);
    }
    Patience patience{};
    for (const uint32_t i : order)
      for (const uint8_t site : {accelerator_site, host_site}) improve_layer(best, layers_[i], site, patience);
    const auto head = static_cast<uint32_t>(g_.ops.size() - 1);
    for (const uint8_t site : {accelerator_site, host_site}) try_move(best, {head}, site);
    if (!(best.seconds < before * 0.9995)) break;
  }
  if (best.seconds == impossible) return std::nullopt;
  settle(best);
  return best;
}

// All kinds of moves of one layer's ops to a site. Of many layers, one op alone matters too little, and a kind that has
// not helped with some of them in a row, 16 of 80, is not tried with the others.
void Search::improve_layer(Found& best, const Layer& l, uint8_t site, Patience& patience) const {
  const auto tried = static_cast<uint32_t>(16 * 80 / layers_.size());
  size_t kind = 0;
  const auto attempt = [&](auto move) {
    uint32_t& failed = patience[site][kind++];
    if (failed < tried) failed = move() ? 0 : failed + 1;
  };
  attempt([&] { return try_move(best, {l.in, l.attention, l.out, l.ffn}, site); });
  attempt([&] { return try_move(best, {l.in, l.attention, l.out}, site); });
  attempt([&] { return try_move(best, {l.in, l.out}, site); });
  attempt([&] { return try_move(best, {l.attention}, site); });
  attempt([&] { return try_move(best, {l.ffn}, site); });
  if (!best.places.decode.splits.empty()) attempt([&] { return try_splits(best, l); });
  if (!small()) return;
  attempt([&] { return try_move(best, {l.in}, site); });
  attempt([&] { return try_move(best, {l.out}, site); });
}

std::optional<Found> Search::best_of(const std::vector<Found>& starts, int rounds) const {
  std::optional<Found> best;
  for (const Found& start : starts) {
    const auto found = improve(start, rounds);
    if (found && (!best || found->seconds < best->seconds)) best = found;
  }
  return best;
}

// --- splits

bool Search::may_split(const Layer& layer) const {
  return !layer.rows.empty() && (r_.pinned.empty() || r_.pinned[layer.ffn] == any_site);
}

// q*: the part of the bytes that the link brings while the CPU reads the others.
double Search::link_share(uint32_t ffn) const {
  const double link = lane_.bytes_s * lane_.beside;
  const double host = divisible_[ffn] / decode_[host_site][ffn].divisible_s * lane_.host_beside;
  return link / (link + host);
}

// A tile more or less at each site; or the FFN, where it is whole, divided by the link's share.
bool Search::try_splits(Found& best, const Layer& layer) const {
  if (!may_split(layer)) return false;
  const auto divide = [&](uint8_t home, uint32_t row) {
    Places places = best.places;
    places.decode.op_site[layer.ffn] = home;
    places.decode.splits[layer.ffn] = {row, home == host_site ? accelerator_site : host_site};
    return try_places(best, std::move(places));
  };
  const Split now = best.places.decode.splits[layer.ffn];
  if (now.row == 0) {
    const double q = link_share(layer.ffn), rows = divided_rows(g_, layer.ffn);
    const bool there = divide(accelerator_site, nearest(layer.rows, static_cast<uint32_t>(q * rows)));
    return divide(host_site, nearest(layer.rows, static_cast<uint32_t>((1 - q) * rows))) || there;
  }
  const uint8_t home = best.places.decode.op_site[layer.ffn];
  const auto at = std::find(layer.rows.begin(), layer.rows.end(), now.row);
  const bool less = at != layer.rows.begin() && divide(home, *(at - 1));
  return (at + 1 != layer.rows.end() && divide(home, *(at + 1))) || less;
}

// `count` FFNs, evenly, with all together `share` of their rows at the host; the others on the accelerator.
Found Search::divided(const Found& whole, uint32_t count, double share) const {
  Found found = whole;
  Placement& decode = found.places.decode;
  decode.splits.assign(g_.ops.size(), {});
  const std::vector<bool> chosen = spread(count, static_cast<uint32_t>(layers_.size()));
  double carried = 0;  // rows that the host was to have, and has not
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& l = layers_[i];
    if (!may_split(l)) continue;
    decode.op_site[l.ffn] = accelerator_site;
    if (!chosen[i]) continue;
    const double rows = divided_rows(g_, l.ffn), wanted = rows * share + carried;
    const double nearly = std::clamp(rows - wanted, 0.0, rows);
    uint32_t row = nearest(l.rows, static_cast<uint32_t>(nearly));
    if (rows - nearly < (rows - l.rows.back()) / 2) row = 0;
    carried = wanted - (row != 0 ? rows - row : 0);
    if (row != 0) decode.splits[l.ffn] = {row, host_site};
  }
  settle(found);
  return found;
}

std::optional<Found> Search::split(const Found& whole) const {
  constexpr double coarse = 1 / 16.0, fine = 1 / 128.0;
  std::optional<Found> best;
  const auto look_at = [&](uint32_t count, double share) {
    Found found = divided(whole, count, share);
    if (found.seconds == impossible || (best && best->seconds <= found.seconds)) return false;
    best = std::move(found);
    return true;
  };
  const auto n = static_cast<uint32_t>(layers_.size());
  for (const uint32_t count : shares(n, 4)) {
    if (count == 0) continue;
    double at = 0;
    for (double share = coarse; share < 1; share += coarse)
      if (look_at(count, share)) at = share;
    for (double step = coarse / 2; at > 0 && step >= fine; step /= 2)
      for (const double share : {at - step, at + step})
        if (look_at(count, share)) at = share;
  }
  Found start = whole;  // and from there layer by layer
  start.places.decode.splits.assign(g_.ops.size(), {});
  std::vector<Found> starts = {std::move(start)};
  if (best) starts.push_back(std::move(*best));
  best = best_of(starts, 2);
  return best && best->seconds < whole.seconds * (1 - least_gain) ? best : std::nullopt;
}

std::optional<Found> Search::run(Kv lying) const {
  std::vector<Found> starts = families(lying);
  starts.resize(std::min<size_t>(starts.size(), small() ? 6 : 3));
  return best_of(starts, 4);
}

std::optional<Found> Search::run_from(const Found& other) const {
  std::vector<Found> starts = {other};
  if (small()) {
    starts = families(other.parted() ? Kv::parted : Kv::whole);
    starts.resize(std::min<size_t>(starts.size(), 3));
    starts.push_back(other);
  }
  return best_of(starts, small() ? 4 : 1);
}

}  // namespace sluice::plan
