#include "cpu/cpu_queue.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "core/bytes.h"
#include "core/error.h"
#include "core/outputs.h"

namespace sluice::cpu {
namespace {

// Below both, one thread is done before a second one has woken up and reported.
constexpr uint64_t solo_bytes = 16 * KiB;
constexpr uint64_t solo_flops = 16 * 1024;

// Each raise costs both sides a cache miss, so launches are published a few at a time; any other command
// publishes all before it.
constexpr uint32_t publish_every = 8;

constexpr uint32_t max_group = 8;
constexpr uint32_t pieces_per_thread = 4;
constexpr uint64_t least_piece_bytes = 256 * KiB;
constexpr uint32_t look_ahead = 10;  // commands in which the next product is looked for
// What a thread fetches of the next product, a fraction of its second-level cache; with more tokens the
// product is bound by computing.
constexpr uint64_t ahead_bytes = 128 * KiB;
constexpr uint32_t ahead_tokens = 8;

bool is_small(const Cost& c) { return c.bytes < solo_bytes && c.flops < solo_flops; }

// Whether it is DenseProduct's.
bool is_dense(const MatmulCall& product) { return in_groups(product.x_format); }

void run_piece(const KernelTable& kernels, DenseProduct* dense, const KernelCall& call, Share piece, uint32_t thread) {
  const auto* product = std::get_if<MatmulCall>(&call);
  if (product != nullptr && is_dense(*product)) dense->multiply(*product, piece, thread);
  else run(kernels, call, piece);
}

// Into how many pieces a product is cut that threads take one after another, each as it gets free, so
// that a thread whose core is slow or wanted by others holds nobody up. Small ones are not worth the
// taking. Of DenseProduct's there may be fewer pieces than threads.
uint32_t pieces_of(const MatmulCall& product, uint32_t n_threads) {
  const uint64_t weights = product.rows * row_bytes(product.dtype, product.cols);
  const uint64_t worth = is_dense(product) ? product.rows / DenseProduct::panel_rows : weights / least_piece_bytes;
  const auto n = std::max(n_threads, static_cast<uint32_t>(std::min<uint64_t>(pieces_per_thread * n_threads, worth)));
  return is_dense(product) ? std::min(n, static_cast<uint32_t>(div_up(product.rows, DenseProduct::row_unit))) : n;
}

// Calls that need no barrier in between, the product that comes next, and when the leader ended each.
struct TeamCalls {
  struct alignas(64) Taken {
    std::atomic<uint32_t> pieces{0};  // each thread has one from the start; this counts those beyond
  };
  const KernelTable* kernels;
  DenseProduct* dense;
  const KernelCall* const* calls;
  uint32_t n;
  const MatmulCall* next;
  uint64_t* ends_ns;
  mutable std::array<Taken, max_group> taken;
};

void run_share(const void* context, Share share) {
  const auto* work = static_cast<const TeamCalls*>(context);
  uint32_t dealt = 0;  // pieces of calls that had fewer than threads: those of the next one go to the threads behind
  for (uint32_t i = 0; i < work->n; ++i) {
    const KernelCall& call = *work->calls[i];
    const auto* product = std::get_if<MatmulCall>(&call);
    const uint32_t n_pieces = product != nullptr ? pieces_of(*product, share.count) : share.count;
    std::atomic<uint32_t>& taken = work->taken[i].pieces;
    for (uint32_t piece = (share.index + share.count - dealt) % share.count; piece < n_pieces;
         piece = share.count + taken.fetch_add(1, std::memory_order_relaxed)) {
      run_piece(*work->kernels, work->dense, call, {piece, n_pieces}, share.index);
      if (n_pieces <= share.count) break;  // nothing is left to take
    }
    if (n_pieces < share.count) dealt = (dealt + n_pieces) % share.count;
    if (share.index == 0 && i + 1 < work->n) work->ends_ns[i] = now_ns();
  }
}

// Where this thread's first piece of the next product begins.
Ahead next_weights(const void* context, Share share) {
  const MatmulCall* next = static_cast<const TeamCalls*>(context)->next;
  if (next == nullptr) return {};
  const uint32_t unit = is_dense(*next) ? DenseProduct::row_unit : matmul_row_unit;
  const Range rows = range_of(next->rows, {share.index, pieces_of(*next, share.count)}, unit);
  const uint64_t size = row_bytes(next->dtype, next->cols);
  return {next->weights + rows.begin * size, std::min((rows.end - rows.begin) * size, ahead_bytes)};
}

// Floats [begin, end) that rows of a product touch; with several tokens the stretches in between too.
struct Stretch {
  const float *begin, *end;
};
Stretch outputs(const MatmulCall& c) { return {c.out, c.out + uint64_t{c.n_tokens - 1} * c.out_stride + c.rows}; }

uint64_t x_bytes(const MatmulCall& c) {
  switch (c.x_format) {
    case ActFormat::q8: return c.n_tokens * q8_row_bytes(c.cols);
    case ActFormat::bf16:
    case ActFormat::wide8: return groups_bytes(c.x_format, c.n_tokens, c.cols);
    case ActFormat::f32: break;
  }
  return c.n_tokens * c.cols * 4ull;
}

// Products of the same activations, which neither of them changes.
bool independent(const MatmulCall& a, const MatmulCall& b) {
  if (a.n_tokens == 0 || a.x != b.x || a.x_format != b.x_format || a.cols != b.cols || a.n_tokens != b.n_tokens)
    return false;
  const auto x_end = reinterpret_cast<uintptr_t>(a.x) + x_bytes(a);
  for (const MatmulCall* c : {&a, &b}) {
    const Stretch out = outputs(*c);
    if (reinterpret_cast<uintptr_t>(out.begin) < x_end &&
        reinterpret_cast<uintptr_t>(out.end) > reinterpret_cast<uintptr_t>(c->x))
      return false;
  }
  return outputs_apart(a, b);
}

// Plain adding is enough: one thread writes.
void add(std::atomic<uint64_t>& counter, uint64_t n) {
  counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

template <size_t... I>
void name_all(std::array<KernelTotals, n_kernels>& totals, std::index_sequence<I...>) {
  ((totals[I].name = name(KernelCall(std::in_place_index<I>))), ...);
}

}  // namespace

CpuQueue::CpuQueue(CpuQueueOptions options, std::unique_ptr<Team> team)
    : options_(std::move(options)), team_(std::move(team)), ring_(options_.ring_commands) {}

Result<std::unique_ptr<CpuQueue>> CpuQueue::create(CpuQueueOptions options) {
  if (options.kernels == nullptr || !is_power_of_two(options.ring_commands))
    return error(Code::invalid_argument, "a CPU queue needs kernels and a ring of 2^n commands");
  SLUICE_ASSIGN_OR_RETURN(auto team, Team::create(options.team));
  std::unique_ptr<CpuQueue> queue(new CpuQueue(std::move(options), std::move(team)));
  SLUICE_RETURN_IF_ERROR(queue->start());
  return queue;
}

Status CpuQueue::start() {
  try {
    leader_ = std::thread([this] { lead(); });
  } catch (const std::system_error& e) {
    return error(Code::unavailable, "cannot start the leading compute thread: {}", e.what());
  }
  return {};
}

CpuQueue::~CpuQueue() {
  if (!leader_.joinable()) return;
  next_slot().kind = Kind::stop;
  ++pushed_;
  publish();
  leader_.join();
}

CpuQueue::Command& CpuQueue::next_slot() {
  const auto size = static_cast<uint32_t>(ring_.size());
  if (pushed_ - known_consumed_ == size) {
    publish();
    consumed_.wait(pushed_ - size + 1, team_->spin_ns());
    known_consumed_ = consumed_.value();
  }
  return ring_[pushed_ & (size - 1)];
}

void CpuQueue::push() {
  if (++pushed_ - announced_ >= publish_every) publish();
}

void CpuQueue::publish() {
  announced_ = pushed_;
  published_.raise(pushed_);
}

void CpuQueue::wait(const Event& event) {
  Command& c = next_slot();
  c.kind = Kind::wait;
  c.event = event;
  ++pushed_;
  publish();
}

void CpuQueue::launch(const KernelCall& call) {
  if (const auto* product = std::get_if<MatmulCall>(&call); product != nullptr && is_dense(*product)) {
    SLUICE_CHECK(options_.dense != nullptr);
    if (Status status = options_.dense->prepare(product->x_format, product->cols); !status.ok()) return fail(status);
  }
  Command& c = next_slot();
  c.kind = Kind::call;
  c.call = call;
  push();
}

// The queue fails once it comes here.
void CpuQueue::fail(const Status& status) {
  unprepared_.signal(++n_unprepared_, status);
  wait(Event(unprepared_, n_unprepared_));
}

Event CpuQueue::signal() {
  Command& c = next_slot();
  c.kind = Kind::signal;
  c.value = ++last_value_;
  ++pushed_;
  publish();
  return Event(timeline_, last_value_);
}

// A command like the others, since the leader may still be busy with the last signal.
void CpuQueue::reset() {
  next_slot().kind = Kind::reset;
  ++pushed_;
  publish();
}

void CpuQueue::lead() {
  team_->bind_leader();
  for (uint32_t next = 0;;) {
    if (!published_.reached(next + 1)) {
      busy_since_ns_ = 0;
      published_.wait(next + 1, team_->spin_ns());
    }
    if (at(next).kind == Kind::stop) return;
    next += execute(next);
    consumed_.raise(next);
  }
}

// Returns how many commands are done.
uint32_t CpuQueue::execute(uint32_t index) {
  if (at(index).kind != Kind::call) {
    execute_other(at(index));
    return 1;
  }
  return failure_.ok() ? run_calls(index) : 1;
}

void CpuQueue::execute_other(Command& command) {
  busy_since_ns_ = 0;
  if (command.kind == Kind::wait) {
    Status status = command.event.wait();
    if (failure_.ok()) failure_ = std::move(status);
  } else if (command.kind == Kind::signal) {
    timeline_.signal(command.value, failure_);
  } else {
    failure_ = {};
  }
}

// The call at `index`, if it is one and there already.
const KernelCall* CpuQueue::peek_call(uint32_t index) {
  if (!published_.reached(index + 1) || at(index).kind != Kind::call) return nullptr;
  return &at(index).call;
}

// The next product that the team will share, if nothing but calls come before it.
const MatmulCall* CpuQueue::next_product(uint32_t index) {
  for (uint32_t i = index; i < index + look_ahead; ++i) {
    const KernelCall* call = peek_call(i);
    if (call == nullptr) return nullptr;
    if (const auto* product = std::get_if<MatmulCall>(call))
      return product->n_tokens <= ahead_tokens ? product : nullptr;
  }
  return nullptr;
}

// Runs the call at `index`, with those after it that need no barrier; returns how many.
uint32_t CpuQueue::run_calls(uint32_t index) {
  const KernelCall* calls[max_group] = {&at(index).call};
  if (team_->size() == 1 || is_small(cost(*calls[0]))) {
    const uint64_t start = busy_since_ns_ != 0 ? busy_since_ns_ : now_ns();
    run_piece(*options_.kernels, options_.dense, *calls[0], Share{}, 0);
    busy_since_ns_ = now_ns();
    account(*calls[0], cost(*calls[0]), start, busy_since_ns_);
    note_failure();
    return 1;
  }
  uint32_t n = 1;
  if (std::holds_alternative<MatmulCall>(*calls[0]))
    for (; n < max_group; ++n) {
      const KernelCall* call = peek_call(index + n);
      if (call == nullptr || !std::holds_alternative<MatmulCall>(*call)) break;
      const auto fits = [call](const KernelCall* other) {
        return independent(std::get<MatmulCall>(*other), std::get<MatmulCall>(*call));
      };
      if (!std::all_of(calls, calls + n, fits)) break;
      calls[n] = call;
    }
  run_group(calls, n, next_product(index + n));
  return n;
}

void CpuQueue::run_group(const KernelCall* const* calls, uint32_t n, const MatmulCall* next) {
  uint64_t ends_ns[max_group];
  uint64_t start = busy_since_ns_ != 0 ? busy_since_ns_ : now_ns();
  const TeamCalls work{options_.kernels, options_.dense, calls, n, next, ends_ns, {}};
  team_->run(run_share, &work, next_weights);
  note_failure();
  busy_since_ns_ = ends_ns[n - 1] = now_ns();
  for (uint32_t i = 0; i < n; ++i) {
    account(*calls[i], cost(*calls[i]), start, ends_ns[i]);
    start = ends_ns[i];
  }
}

void CpuQueue::note_failure() {
  if (options_.dense == nullptr) return;
  if (Status status = options_.dense->take_failure(); failure_.ok()) failure_ = std::move(status);
}

void CpuQueue::account(const KernelCall& call, const Cost& c, uint64_t start_ns, uint64_t end_ns) {
  Counters& counters = counters_[call.index()];
  add(counters.calls, 1);
  add(counters.bytes, c.bytes);
  add(counters.flops, c.flops);
  add(counters.busy_ns, end_ns - start_ns);
  if (options_.trace != nullptr) options_.trace->record({"cpu", name(call).data(), start_ns, end_ns, c.bytes, c.flops});
}

std::array<KernelTotals, n_kernels> CpuQueue::totals() const {
  std::array<KernelTotals, n_kernels> out;
  name_all(out, std::make_index_sequence<n_kernels>());
  for (size_t i = 0; i < n_kernels; ++i) {
    out[i].calls = counters_[i].calls.load(std::memory_order_relaxed);
    out[i].bytes = counters_[i].bytes.load(std::memory_order_relaxed);
    out[i].flops = counters_[i].flops.load(std::memory_order_relaxed);
    out[i].busy_ns = counters_[i].busy_ns.load(std::memory_order_relaxed);
  }
  return out;
}

}  // namespace sluice::cpu
