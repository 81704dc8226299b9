// Transfers: starts the I/O that the BlockTable asks for, on the Store and the CopyQueues.
//
// Holds no state of copies. A load into memory that files can be read into is one Store request for each
// extent. Any other load is read into staging memory of the host, and the copy from there is enqueued at
// once behind the read: wait(read), copy, signal. What is written to the spill file is summed before, and
// what comes back from there is ready when a thread of its own has found the sum right.
//
// A CopyQueue that has failed fails everything behind the failure; it is reset as soon as all of that has
// ended, before the next copy is enqueued. So one failed read may fail loads that were enqueued on the
// same queue behind it; they can be fetched again.
// Threads: any; each CopyQueue is locked while a copy is enqueued on it. No lock of the BlockTable is
// held here.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "core/queue.h"
#include "core/store.h"
#include "offload/tier/event_joiner.h"
#include "offload/tier/job.h"

namespace sluice::tier {

class Transfers {
 public:
  explicit Transfers(Store* store) : store_(store) {}

  // Before any job that uses it.
  void connect(TierId from, TierId to, CopyQueue& queue);

  // Starts all jobs, the reads in batches and in order, and fills in their results.
  void start(std::span<Job> jobs);

 private:
  struct Lane {
    CopyQueue* queue = nullptr;
    std::mutex mutex;
    Event last;  // behind everything that was enqueued
  };
  struct Link {
    TierId from, to;
    Lane* lane;
  };
  class Batch;

  Lane& lane(TierId from, TierId to);
  void add_requests(Job& job, Batch& batch);
  void finish(Job& job);
  Event read_end(Job& job);
  Event enqueue(Lane& lane, std::span<const Event> first, const EventSet& after, std::byte* to, const std::byte* from,
                uint64_t bytes);

  Store* store_;
  std::vector<std::unique_ptr<Lane>> lanes_;  // one for each queue: links may share one
  std::vector<Link> links_;
  EventJoiner joiner_, checker_;
};

}  // namespace sluice::tier
