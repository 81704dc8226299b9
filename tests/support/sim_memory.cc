#include "tests/support/sim_memory.h"

#include <cstring>

#include "core/bytes.h"
#include "core/error.h"

namespace sluice::testing {

SimMemory::SimMemory(uint64_t capacity, bool host_accessible) : capacity_(capacity), host_accessible_(host_accessible) {
  const uint64_t bytes = align_up(capacity, 2 * MiB);
  base_.reset(static_cast<std::byte*>(std::aligned_alloc(2 * MiB, bytes)));
  SLUICE_CHECK(base_ != nullptr);
  std::memset(base_.get(), 0xDB, capacity);
}

SimCopyQueue::SimCopyQueue(const Options& options) : options_(options), thread_([this] { run(); }) {}

SimCopyQueue::~SimCopyQueue() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void SimCopyQueue::wait(const Event& event) { push({Command::Kind::wait, event}); }

void SimCopyQueue::copy(std::byte* to, const std::byte* from, uint64_t bytes) {
  push({Command::Kind::copy, {}, to, from, bytes});
}

Event SimCopyQueue::signal() {
  Command command{Command::Kind::signal, {}};
  command.value = ++enqueued_;
  push(command);
  return Event(timeline_, command.value);
}

void SimCopyQueue::reset() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return commands_.empty() && !running_; });
  failure_ = Status();
}

void SimCopyQueue::fail_copy(uint64_t n, bool repeat) {
  std::lock_guard lock(mutex_);
  fail_in_ = n;
  fail_every_ = repeat ? n : 0;
}

void SimCopyQueue::push(const Command& command) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return commands_.size() < options_.ring; });
  commands_.push_back(command);
  changed_.notify_all();
}

void SimCopyQueue::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || !commands_.empty(); });
    if (commands_.empty()) return;
    const Command command = commands_.front();
    commands_.pop_front();
    running_ = true;
    lock.unlock();
    execute(command);
    lock.lock();
    running_ = false;
    changed_.notify_all();
  }
}

// failure_ is this thread's while commands are enqueued.
void SimCopyQueue::execute(const Command& command) {
  if (command.kind == Command::Kind::signal) {
    timeline_.signal(command.value, failure_);
  } else if (!failure_.ok()) {
    return;
  } else if (command.kind == Command::Kind::wait) {
    failure_ = command.event.wait();
  } else {
    do_copy(command);
  }
}

void SimCopyQueue::do_copy(const Command& command) {
  if (copy_faults()) {
    failure_ = error(Code::io_error, "injected failure of a copy of {} bytes", command.bytes);
    return;
  }
  std::memcpy(command.to, command.from, command.bytes);
  copies_ += 1;
  bytes_ += command.bytes;
  auto time = options_.latency;
  if (options_.bytes_per_s > 0)
    time +=
        std::chrono::nanoseconds(static_cast<int64_t>(1e9 * static_cast<double>(command.bytes) / options_.bytes_per_s));
  if (time.count() > 0) std::this_thread::sleep_for(time);
}

bool SimCopyQueue::copy_faults() {
  std::lock_guard lock(mutex_);
  if (fail_in_ == 0 || --fail_in_ > 0) return false;
  fail_in_ = fail_every_;
  return true;
}

}  // namespace sluice::testing
