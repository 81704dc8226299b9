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
//
// Recordings, of queues that can: between record(key) and the next replay(key) calls are kept instead of run, and
// from then on replay(key) enqueues them all, at about the price of one. They read what the addresses hold at that
// time. wait() and signal() are never part of a recording. A call that cannot be kept fails the queue, and the
// recording is none. The oldest recordings may be forgotten.
class Queue {
 public:
  virtual ~Queue() = default;
  virtual void wait(const Event& event) = 0;
  virtual void launch(const KernelCall& call) = 0;
  virtual Event signal() = 0;
  // The same, but the Event may come a little later if that spares what is enqueued behind it: for those who only
  // want to know when memory is free again.
  virtual Event signal_aside() { return signal(); }
  virtual void reset() = 0;

  virtual bool can_record() const { return false; }
  virtual bool has_recording(uint64_t) const { return false; }
  virtual void record(uint64_t) {}
  virtual void replay(uint64_t) {}
  // Memory that recordings name is given back. Nothing may be enqueued.
  virtual void forget_recordings() {}
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
