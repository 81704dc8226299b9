#include "offload/tier/transfers.h"

#include "core/error.h"

namespace sluice::tier {

// Requests on their way to one submit(), and where their Events go.
class Transfers::Batch {
 public:
  explicit Batch(Store* store) : store_(store) {}
  ~Batch() { flush(); }
  void add(const IoRequest& request, Event* event) {
    if (size_ == capacity) flush();
    requests_[size_] = request;
    targets_[size_++] = event;
  }
  void flush() {
    if (size_ == 0) return;
    store_->submit({requests_.data(), size_}, {events_.data(), size_});
    for (size_t i = 0; i < size_; ++i) *targets_[i] = events_[i];
    size_ = 0;
  }

 private:
  static constexpr size_t capacity = 64;
  Store* store_;
  size_t size_ = 0;
  std::array<IoRequest, capacity> requests_;
  std::array<Event, capacity> events_;
  std::array<Event*, capacity> targets_;
};

void Transfers::connect(TierId from, TierId to, CopyQueue& queue) {
  Lane* lane = nullptr;
  for (const auto& known : lanes_)
    if (known->queue == &queue) lane = known.get();
  if (lane == nullptr) {
    lane = lanes_.emplace_back(std::make_unique<Lane>()).get();
    lane->queue = &queue;
  }
  for (Link& link : links_)
    if (link.from == from && link.to == to) {
      link.lane = lane;
      return;
    }
  links_.push_back({from, to, lane});
}

void Transfers::start(std::span<Job> jobs) {
  {
    Batch batch(store_);
    for (Job& job : jobs) add_requests(job, batch);
  }
  for (Job& job : jobs) finish(job);
}

Transfers::Lane& Transfers::lane(TierId from, TierId to) {
  for (const Link& link : links_)
    if (link.from == from && link.to == to) return *link.lane;
  fatal(__FILE__, __LINE__, "a copy between tiers that are not connected");
}

void Transfers::add_requests(Job& job, Batch& batch) {
  std::byte* const memory = job.staging != nullptr ? job.staging : job.slot;
  if (job.kind == Job::Kind::write) {
    job.sum = spill_sum(memory, job.spill.bytes);
    batch.add({IoRequest::Op::write, job.spill, memory}, &job.io);
  } else if (job.kind == Job::Kind::load && job.source == Job::Source::spill) {
    batch.add({IoRequest::Op::read, job.spill, memory}, &job.io);
  } else if (job.kind == Job::Kind::load && job.source == Job::Source::home) {
    const std::vector<Extent>& home = job.block->home;
    for (size_t i = 0; i < home.size(); ++i)
      batch.add({IoRequest::Op::read, home[i], memory + job.block->part_offset(i) - payload_offset(home[i])},
                home.size() == 1 ? &job.io : &job.parts[i]);
  }
}

void Transfers::finish(Job& job) {
  const uint64_t bytes = job.block->slot_size();
  if (job.kind == Job::Kind::copy_out) {
    job.io = enqueue(lane(job.tier, host_tier), {}, job.after, job.staging, job.slot, bytes);
  } else if (job.kind == Job::Kind::load && job.source == Job::Source::memory) {
    job.done = enqueue(lane(job.from, job.tier), {&job.source_ready, 1}, job.after, job.slot, job.from_slot, bytes);
  } else if (job.kind == Job::Kind::load) {
    const Event read = read_end(job);
    job.done = job.staging == nullptr
                   ? read
                   : enqueue(lane(host_tier, job.tier), {&read, 1}, job.after, job.slot, job.staging, bytes);
  }
}

// When all that a load reads from files is there, and whole.
Event Transfers::read_end(Job& job) {
  if (job.source == Job::Source::spill) {
    const std::byte* const memory = job.staging != nullptr ? job.staging : job.slot;
    return checker_.check(job.io, {job.block->id, memory, job.spill.offset, job.spill.bytes, job.sum});
  }
  if (!job.parts.empty()) job.io = joiner_.join(job.parts);
  return job.io;
}

Event Transfers::enqueue(Lane& lane, std::span<const Event> first, const EventSet& after, std::byte* to,
                         const std::byte* from, uint64_t bytes) {
  std::lock_guard lock(lane.mutex);
  if (lane.last.done() && !lane.last.status().ok()) lane.queue->reset();
  for (const Event& event : first) lane.queue->wait(event);
  for (const Event& event : after) lane.queue->wait(event);
  lane.queue->copy(to, from, bytes);
  lane.last = lane.queue->signal();
  return lane.last;
}

}  // namespace sluice::tier
