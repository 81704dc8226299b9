// StagedCopyQueue: copies between a GPU and host memory that could not be pinned, through a pinned ring.
//
// Contract: core/queue.h. A thread moves the data between host memory and the slots of the ring, while the GPU
// copies other slots. It costs a core, the CPU's share of memory bandwidth and some of the link's rate, and a
// signal lets the ring run empty: use it only where PinnedMemory::pin() is refused (gpu/gpu_memory.h says when).
// Nothing is allocated after create(), but on failures.
// Threads: as CopyQueue.
#pragma once

#include <array>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/memory.h"
#include "gpu/gpu_copy_queue.h"

namespace sluice::gpu {

class StagedCopyQueue : public CopyQueue {
 public:
  static constexpr size_t n_slots = 4;
  enum class Direction : uint8_t { to_device, to_host };

  // `ring` is pinned and this queue's alone; it and `completions` outlive the queue. invalid_argument for a
  // ring of less than n_slots bytes. `lane` is what the trace calls the GPU's copies.
  static Result<std::unique_ptr<StagedCopyQueue>> create(Completions& completions, Memory& ring, Direction direction,
                                                         const char* lane = "pcie");
  ~StagedCopyQueue() override;

  void wait(const Event& event) override;
  void copy(std::byte* to, const std::byte* from, uint64_t bytes) override;
  Event signal() override;
  void reset() override;

  uint64_t bytes_copied() const { return link_->bytes_copied(); }

 private:
  enum class Kind : uint8_t { wait, copy, signal, reset, stop };
  struct Command {
    Kind kind = Kind::stop;
    Event event;
    std::byte* to = nullptr;
    const std::byte* from = nullptr;
    uint64_t bytes = 0, value = 0;
  };
  // A part of the ring and the copy that the GPU makes from or to it.
  struct Slot {
    std::byte* at = nullptr;
    Event copied;
    std::byte* to = nullptr;  // where it goes on the host
    uint64_t bytes = 0;       // 0: free
  };

  StagedCopyQueue(std::unique_ptr<GpuCopyQueue> link, Memory& ring, Direction direction);
  Status start();
  void push(const Command& command);
  void run();
  void execute(const Command& command);
  void copy_in_pieces(const Command& command);
  void finish(Slot& slot);
  void finish_all();
  void note(const Status& status);

  const std::unique_ptr<GpuCopyQueue> link_;
  const Direction direction_;
  const uint64_t slot_bytes_;
  Timeline timeline_;
  uint64_t last_value_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Command> commands_;  // a ring
  size_t first_ = 0, n_commands_ = 0;

  // Of the thread.
  std::array<Slot, n_slots> slots_;
  size_t next_slot_ = 0;
  Status failure_;
  std::thread thread_;
};

}  // namespace sluice::gpu
