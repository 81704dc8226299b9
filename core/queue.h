// Queues: in-order streams of work.
//
// Contract of both kinds
// - All calls return at once, unless the queue's bounded ring of commands is full.
// - wait(e): what is enqueued later starts after e. If e failed, the queue fails with e's Status.
// - signal(): an Event for everything enqueued before it. In a failed queue later work is skipped and
//   later Events fail with the first failure's Status, so nothing hangs and nothing runs on bad data.
// - reset(): clears the failure; only when nothing is enqueued. A failed step is discarded before it.
// - The destructor finishes what was enqueued.
// Threads: enqueueing is done by one thread at a time.
#pragma once

#include "core/event.h"
#include "core/kernel.h"

namespace sluice {

// Kernels on one device. The memory that a call names must stay valid until an Event after it.
class Queue {
 public:
  virtual ~Queue() = default;
  virtual void wait(const Event& event) = 0;
  virtual void launch(const KernelCall& call) = 0;
  virtual Event signal() = 0;
  virtual void reset() = 0;
};

// Copies between two memory tiers, or within one.
class CopyQueue {
 public:
  virtual ~CopyQueue() = default;
  virtual void wait(const Event& event) = 0;
  virtual void copy(std::byte* to, const std::byte* from, uint64_t bytes) = 0;
  virtual Event signal() = 0;
  virtual void reset() = 0;
};

}  // namespace sluice
