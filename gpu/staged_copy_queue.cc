#include "gpu/staged_copy_queue.h"

#include <algorithm>
#include <cstring>
#include <system_error>

#include "core/error.h"

namespace sluice::gpu {
namespace {

constexpr size_t ring_commands = 256;

}  // namespace

StagedCopyQueue::StagedCopyQueue(std::unique_ptr<GpuCopyQueue> link, Memory& ring, Direction direction)
    : link_(std::move(link)), direction_(direction), slot_bytes_(ring.capacity() / n_slots), commands_(ring_commands) {
  for (size_t i = 0; i < n_slots; ++i) slots_[i].at = ring.base() + i * slot_bytes_;
}

Result<std::unique_ptr<StagedCopyQueue>> StagedCopyQueue::create(Completions& completions, Memory& ring,
                                                                 Direction direction, const char* lane) {
  if (ring.capacity() < n_slots) return error(Code::invalid_argument, "a pinned ring of {} bytes", ring.capacity());
  SLUICE_ASSIGN_OR_RETURN(auto link, GpuCopyQueue::create(completions, lane));
  std::unique_ptr<StagedCopyQueue> queue(new StagedCopyQueue(std::move(link), ring, direction));
  SLUICE_RETURN_IF_ERROR(queue->start());
  return queue;
}

Status StagedCopyQueue::start() {
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& e) {
    return error(Code::unavailable, "cannot start the thread that stages copies: {}", e.what());
  }
  return {};
}

StagedCopyQueue::~StagedCopyQueue() {
  if (!thread_.joinable()) return;
  push({});
  thread_.join();
}

void StagedCopyQueue::wait(const Event& event) { push({Kind::wait, event, nullptr, nullptr, 0, 0}); }

void StagedCopyQueue::copy(std::byte* to, const std::byte* from, uint64_t bytes) {
  push({Kind::copy, {}, to, from, bytes, 0});
}

Event StagedCopyQueue::signal() {
  push({Kind::signal, {}, nullptr, nullptr, 0, ++last_value_});
  return Event(timeline_, last_value_);
}

void StagedCopyQueue::reset() { push({Kind::reset, {}, nullptr, nullptr, 0, 0}); }

void StagedCopyQueue::push(const Command& command) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return n_commands_ < ring_commands; });
  commands_[(first_ + n_commands_++) % ring_commands] = command;
  changed_.notify_all();
}

void StagedCopyQueue::run() {
  for (;;) {
    Command command;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return n_commands_ > 0; });
      command = commands_[first_];
      first_ = (first_ + 1) % ring_commands;
      n_commands_ -= 1;
      changed_.notify_all();
    }
    if (command.kind == Kind::stop) return finish_all();
    execute(command);
  }
}

void StagedCopyQueue::execute(const Command& command) {
  switch (command.kind) {
    case Kind::wait: note(command.event.wait()); break;
    case Kind::copy: copy_in_pieces(command); break;
    case Kind::signal:
      finish_all();
      timeline_.signal(command.value, failure_);
      break;
    case Kind::reset:
      finish_all();
      link_->reset();
      failure_ = {};
      break;
    case Kind::stop: break;
  }
}

void StagedCopyQueue::copy_in_pieces(const Command& command) {
  for (uint64_t done = 0; done < command.bytes && failure_.ok();) {
    Slot& slot = slots_[next_slot_++ % n_slots];
    finish(slot);
    if (!failure_.ok()) return;
    slot.bytes = std::min(slot_bytes_, command.bytes - done);
    if (direction_ == Direction::to_device) {
      std::memcpy(slot.at, command.from + done, slot.bytes);
      link_->copy(command.to + done, slot.at, slot.bytes);
    } else {
      slot.to = command.to + done;
      link_->copy(slot.at, command.from + done, slot.bytes);
    }
    slot.copied = link_->signal();
    done += slot.bytes;
  }
}

// Waits until the GPU is through with a slot, whose data then reaches the host.
void StagedCopyQueue::finish(Slot& slot) {
  if (slot.bytes == 0) return;
  const Status copied = slot.copied.wait();
  note(copied);
  if (copied.ok() && direction_ == Direction::to_host) std::memcpy(slot.to, slot.at, slot.bytes);
  slot.bytes = 0;
}

void StagedCopyQueue::finish_all() {
  for (size_t i = 0; i < n_slots; ++i) finish(slots_[(next_slot_ + i) % n_slots]);
}

void StagedCopyQueue::note(const Status& status) {
  if (failure_.ok()) failure_ = status;
}

}  // namespace sluice::gpu
