#include "gpu/completions.h"

#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <system_error>
#include <utility>

#include "core/error.h"
#include "core/trace.h"
#include "gpu/cuda_error.h"

namespace sluice::gpu {
namespace {

constexpr std::chrono::microseconds nap{10};
constexpr uint64_t bare_check_ns = 50'000;

// How far a ring index lies ahead of another.
int32_t ahead(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b); }

uint64_t load(uint64_t& counter) { return std::atomic_ref<uint64_t>(counter).load(std::memory_order_acquire); }
void store(uint64_t& counter, uint64_t value) {
  std::atomic_ref<uint64_t>(counter).store(value, std::memory_order_release);
}

}  // namespace

void Track::push(Entry entry) {
  const uint32_t index = pushed_.load(std::memory_order_relaxed);
  for (uint32_t seen = settled_.load(std::memory_order_acquire); index - seen == ring_entries;
       seen = settled_.load(std::memory_order_acquire))
    settled_.wait(seen, std::memory_order_acquire);
  at(index) = std::move(entry);
  pushed_.store(index + 1, std::memory_order_release);
  pushes_->fetch_add(1, std::memory_order_release);
  pushes_->notify_one();
}

void Track::drain() {
  const uint32_t end = pushed_.load(std::memory_order_relaxed);
  for (uint32_t seen = settled_.load(std::memory_order_acquire); seen != end;
       seen = settled_.load(std::memory_order_acquire))
    settled_.wait(seen, std::memory_order_acquire);
}

// Drained, the thread looks at none of this until the next push.
void Track::clear_failure() {
  failure_ = {};
  failed_.store(false, std::memory_order_release);
}

Track::Progress Track::advance(const Status* lost) {
  const uint32_t end = pushed_.load(std::memory_order_acquire);
  const uint32_t released_before = next_release_, settled_before = next_settle_;
  release_waits(end, lost != nullptr);
  while (next_settle_ != end && settle(at(next_settle_), next_settle_, lost)) ++next_settle_;
  const bool moved = next_release_ != released_before || next_settle_ != settled_before;
  const bool pending = next_settle_ != end;
  // What comes after this store is the enqueueing thread's if it has drained: touch nothing of it.
  if (next_settle_ != settled_before) {
    settled_.store(next_settle_, std::memory_order_release);
    settled_.notify_all();
  }
  return {moved, pending};
}

// Runs ahead of the signals, so that the stream finds the way free when it gets there.
void Track::release_waits(uint32_t end, bool lost) {
  for (; next_release_ != end; ++next_release_) {
    const Entry& entry = at(next_release_);
    if (entry.kind != Kind::host_wait) continue;
    if (!lost && !entry.event.done()) return;
    store(*released_, entry.value);
  }
}

// False if it is not time yet.
bool Track::settle(Entry& entry, uint32_t index, const Status* lost) {
  if (lost != nullptr) note(*lost);
  switch (entry.kind) {
    case Kind::host_wait:
      if (ahead(next_release_, index) <= 0) return false;
      note(entry.event.status());
      note(entry.status);
      return true;
    case Kind::device_wait:
      if (lost == nullptr && !entry.event.done()) return false;
      note(entry.event.status());
      note(entry.status);
      return true;
    case Kind::failure: note(std::exchange(entry.status, {})); return true;
    case Kind::signal:
      if (lost == nullptr && !reached(entry.value)) return false;
      timeline_.signal(entry.value, failure_);
      if (lost == nullptr && entry.worked) record_span(entry);
      return true;
    case Kind::bare_signal:
      if (lost == nullptr && entry.value > reached_at_least_) return false;
      timeline_.signal(entry.value, failure_);
      return true;
  }
  return true;
}

// What is waited for of a Timeline that goes has happened; how it ended is kept in the entry.
void Track::forget(const Timeline& timeline) {
  const uint32_t end = pushed_.load(std::memory_order_acquire);
  for (uint32_t i = next_settle_; i != end; ++i) {
    Entry& entry = at(i);
    if (entry.event.timeline() != &timeline) continue;
    entry.status = entry.event.status();
    entry.event = {};
  }
}

void Track::note(const Status& status) {
  if (status.ok() || !failure_.ok()) return;
  failure_ = status;
  failed_.store(true, std::memory_order_release);
}

bool Track::reached(uint64_t value) const {
  if (value <= reached_at_least_) return true;
  if (polled_) return cudaEventQuery(event_of(value)) == cudaSuccess;
  return load(*reached_) >= value || load(*reached_aside_) >= value;
}

void Track::record_span(const Entry& entry) {
  if (!has_event_of(entry.value)) return trace_->drop();
  float begin_ms = 0, took_ms = 0;
  if (cudaEventElapsedTime(&begin_ms, base_, begin_of(entry.value)) != cudaSuccess ||
      cudaEventElapsedTime(&took_ms, begin_of(entry.value), event_of(entry.value)) != cudaSuccess) {
    (void)cudaGetLastError();
    return trace_->drop();
  }
  const uint64_t begin = base_ns_ + static_cast<uint64_t>(begin_ms * 1e6);
  trace_->record({lane_, "work", begin, begin + static_cast<uint64_t>(took_ms * 1e6), entry.bytes, entry.flops});
}

// The signal that everything behind it waits for, if it is one.
const Track::Entry* Track::awaited() {
  if (next_settle_ == pushed_.load(std::memory_order_acquire)) return nullptr;
  const Entry& entry = at(next_settle_);
  return entry.kind == Kind::signal || entry.kind == Kind::bare_signal ? &entry : nullptr;
}

void Track::stream_is_idle() {
  const Entry& entry = *awaited();
  if (entry.kind == Kind::signal && !reached(entry.value))
    note(error(Code::internal, "a CUDA stream ended its work without the signal that follows it"));
  reached_at_least_ = entry.value;
}

Result<std::unique_ptr<Completions>> Completions::create(const Options& options) {
  SLUICE_RETURN_IF_ERROR(to_status(cudaSetDevice(options.device), fmt::format("GPU {}", options.device)));
  Driver driver;
  if (options.stream_memory_operations) {
    SLUICE_ASSIGN_OR_RETURN(driver, Driver::load(options.device));
  }
  SLUICE_ASSIGN_OR_RETURN(auto counters, PinnedMemory::allocate(options.device, max_streams * sizeof(Counters)));
  std::unique_ptr<Completions> completions(new Completions(options, driver, std::move(counters)));
  SLUICE_RETURN_IF_ERROR(completions->start());
  return completions;
}

Status Completions::start() {
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& e) {
    return error(Code::unavailable, "cannot start the thread that follows GPU {}: {}", device(), e.what());
  }
  return {};
}

Completions::~Completions() {
  stop_.store(true, std::memory_order_release);
  pushes_.fetch_add(1, std::memory_order_release);
  pushes_.notify_one();
  if (thread_.joinable()) thread_.join();
}

Status Completions::lost() const {
  std::lock_guard lock(mutex_);
  return lost_;
}

Result<Track*> Completions::add(const char* lane) {
  std::lock_guard lock(mutex_);
  for (uint32_t i = 0; i < max_streams; ++i) {
    if (tracks_[i] != nullptr) continue;
    std::unique_ptr<Track> track(new Track(!stream_memory_operations()));
    track->trace_ = options_.trace;
    track->lane_ = lane;
    const auto beside = std::count_if(tracks_.begin(), tracks_.end(),
                                      [](const auto& other) { return other != nullptr && other->aside_ != nullptr; });
    SLUICE_RETURN_IF_ERROR(make_stream(*track, beside < max_aside));
    Counters& counters = reinterpret_cast<Counters*>(counters_->base())[i];
    track->reached_ = &counters.reached;
    track->reached_aside_ = &counters.reached_aside;
    track->released_ = &counters.released;
    store(counters.reached, 0);
    store(counters.reached_aside, 0);
    store(counters.released, 0);
    track->pushes_ = &pushes_;
    tracks_[i] = std::move(track);
    timelines_[i].store(&tracks_[i]->timeline_, std::memory_order_release);
    return tracks_[i].get();
  }
  return error(Code::unavailable, "GPU {}: more than {} streams", device(), max_streams);
}

void Completions::remove(Track* track) {
  std::lock_guard lock(mutex_);
  for (uint32_t i = 0; i < max_streams; ++i) {
    if (tracks_[i].get() != track) continue;
    timelines_[i].store(nullptr, std::memory_order_release);
    for (const auto& other : tracks_)
      if (other != nullptr) other->forget(track->timeline_);
    destroy_stream(*track);
    tracks_[i].reset();
  }
}

Track* Completions::find(const Timeline* timeline) const {
  for (uint32_t i = 0; i < max_streams; ++i)
    if (timelines_[i].load(std::memory_order_acquire) == timeline) return tracks_[i].get();
  return nullptr;
}

Status Completions::make_stream(Track& track, bool aside) {
  SLUICE_RETURN_IF_ERROR(to_status(cudaSetDevice(device()), fmt::format("GPU {}", device())));
  Status made = to_status(cudaStreamCreateWithFlags(&track.stream_, cudaStreamNonBlocking), "making a CUDA stream");
  if (made.ok() && aside)
    made = to_status(cudaStreamCreateWithFlags(&track.aside_, cudaStreamNonBlocking), "making a CUDA stream");
  const unsigned flags = track.trace_ == nullptr ? cudaEventDisableTiming : cudaEventDefault;
  for (cudaEvent_t& event : track.events_)
    if (made.ok()) made = to_status(cudaEventCreateWithFlags(&event, flags), "making a CUDA event");
  if (made.ok() && track.trace_ != nullptr) made = make_timing(track);
  if (!made.ok()) destroy_stream(track);
  return made;
}

Status Completions::make_timing(Track& track) {
  for (cudaEvent_t& event : track.begins_)
    SLUICE_RETURN_IF_ERROR(to_status(cudaEventCreateWithFlags(&event, cudaEventDefault), "making a CUDA event"));
  SLUICE_RETURN_IF_ERROR(to_status(cudaEventCreateWithFlags(&track.base_, cudaEventDefault), "making a CUDA event"));
  return match_clocks(track);
}

// The base passes between two looks at the host's clock. Where the host was kept from looking, it is asked again.
Status Completions::match_clocks(Track& track) {
  constexpr uint64_t close_ns = 30'000;
  for (int tries = 0; tries < 20; ++tries) {
    const uint64_t before = now_ns();
    SLUICE_RETURN_IF_ERROR(to_status(cudaEventRecord(track.base_, track.stream_), "timing a stream"));
    SLUICE_RETURN_IF_ERROR(to_status(cudaEventSynchronize(track.base_), "timing a stream"));
    const uint64_t apart = now_ns() - before;
    track.base_ns_ = before + apart / 2;
    if (apart < close_ns) break;
  }
  return {};
}

void Completions::destroy_stream(Track& track) {
  const auto destroy = [](cudaEvent_t event) {
    if (event != nullptr) to_status(cudaEventDestroy(event), "destroying an event").ignore();
  };
  for (const cudaEvent_t event : track.events_) destroy(event);
  for (const cudaEvent_t event : track.begins_) destroy(event);
  destroy(track.base_);
  for (const cudaStream_t stream : {track.aside_, track.stream_})
    if (stream != nullptr) to_status(cudaStreamDestroy(stream), "destroying a stream").ignore();
}

void Completions::run() {
  (void)cudaSetDevice(device());
  (void)::prctl(PR_SET_TIMERSLACK, 1000ul);  // ns; without it a nap takes 60 us
  uint64_t moved_ns = now_ns();
  while (!stop_.load(std::memory_order_acquire)) {
    const uint32_t seen = pushes_.load(std::memory_order_acquire);
    const Track::Progress progress = look();
    if (progress.moved) {
      moved_ns = now_ns();
    } else if (!progress.pending) {
      pushes_.wait(seen, std::memory_order_acquire);
      moved_ns = now_ns();
    } else if (now_ns() - moved_ns > options_.spin_ns) {
      std::this_thread::sleep_for(nap);
    }
  }
}

Track::Progress Completions::look() {
  std::lock_guard lock(mutex_);
  Track::Progress all;
  for (const auto& track : tracks_) {
    if (track == nullptr) continue;
    const Track::Progress one = track->advance(is_lost() ? &lost_ : nullptr);
    all.moved |= one.moved;
    all.pending |= one.pending;
    if (one.moved || !one.pending) track->moved_ns_ = 0;
    else check(*track);
  }
  return all;
}

// CUDA's errors of a broken device stay; one that is gone at the second look was somebody's refused call.
void Completions::check(Track& track) {
  const uint64_t now = now_ns();
  if (track.moved_ns_ == 0) track.moved_ns_ = now;
  const Track::Entry* awaited = track.awaited();
  if (awaited == nullptr) return;
  const bool bare = awaited->kind == Track::Kind::bare_signal;
  if (now - track.moved_ns_ < (bare ? std::min(bare_check_ns, options_.check_ns) : options_.check_ns)) return;
  track.moved_ns_ = now;
  cudaError_t state = cudaStreamQuery(track.stream_);
  if (state == cudaSuccess && track.aside_ != nullptr) state = cudaStreamQuery(track.aside_);
  if (state == cudaErrorNotReady) return;
  if (state == cudaSuccess) return track.stream_is_idle();
  const cudaError_t again = cudaStreamQuery(track.stream_);
  const Status status = to_status(state, fmt::format("GPU {} has stopped working", device()));
  if (again == cudaSuccess || again == cudaErrorNotReady) track.note(status);
  else lose(status);
}

void Completions::lose(const Status& status) {
  if (is_lost()) return;
  lost_ = Status(Code::unavailable, status.message() + "; what it was doing is lost");
  is_lost_.store(true, std::memory_order_release);
}

}  // namespace sluice::gpu
