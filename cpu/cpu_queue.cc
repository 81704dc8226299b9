#include "cpu/cpu_queue.h"

#include <system_error>
#include <utility>

#include "core/bytes.h"
#include "core/error.h"

namespace sluice::cpu {
namespace {

// Below both, one thread is done before a second one has woken up and reported.
constexpr uint64_t solo_bytes = 16 * KiB;
constexpr uint64_t solo_flops = 16 * 1024;

struct TeamCall {
  const KernelTable* kernels;
  const KernelCall* call;
};

void run_share(const void* context, Share share) {
  const auto* work = static_cast<const TeamCall*>(context);
  run(*work->kernels, *work->call, share);
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
  publish();
  leader_.join();
}

CpuQueue::Command& CpuQueue::next_slot() {
  const auto size = static_cast<uint32_t>(ring_.size());
  if (pushed_ - known_consumed_ == size) {
    consumed_.wait(pushed_ - size + 1, team_->spin_ns());
    known_consumed_ = consumed_.value();
  }
  return ring_[pushed_ & (size - 1)];
}

void CpuQueue::publish() { published_.raise(++pushed_); }

void CpuQueue::wait(const Event& event) {
  Command& c = next_slot();
  c.kind = Kind::wait;
  c.event = event;
  publish();
}

void CpuQueue::launch(const KernelCall& call) {
  Command& c = next_slot();
  c.kind = Kind::call;
  c.call = call;
  publish();
}

Event CpuQueue::signal() {
  Command& c = next_slot();
  c.kind = Kind::signal;
  c.value = ++last_value_;
  publish();
  return Event(timeline_, last_value_);
}

// A command like the others, since the leader may still be busy with the last signal.
void CpuQueue::reset() {
  next_slot().kind = Kind::reset;
  publish();
}

void CpuQueue::lead() {
  team_->bind_leader();
  for (uint32_t next = 0;; ++next) {
    if (!published_.reached(next + 1)) {
      busy_since_ns_ = 0;
      published_.wait(next + 1, team_->spin_ns());
    }
    Command& command = ring_[next & (ring_.size() - 1)];
    if (command.kind == Kind::stop) return;
    execute(command);
    consumed_.raise(next + 1);
  }
}

void CpuQueue::execute(Command& command) {
  if (command.kind == Kind::call) {
    if (failure_.ok()) run_call(command.call);
    return;
  }
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

void CpuQueue::run_call(const KernelCall& call) {
  const uint64_t start = busy_since_ns_ != 0 ? busy_since_ns_ : now_ns();
  const Cost c = cost(call);
  if (team_->size() == 1 || (c.bytes < solo_bytes && c.flops < solo_flops)) {
    run(*options_.kernels, call, Share{});
  } else {
    const TeamCall work{options_.kernels, &call};
    team_->run(run_share, &work);
  }
  busy_since_ns_ = now_ns();
  account(call, c, start, busy_since_ns_);
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
