#include "gpu/stream.h"

#include "core/error.h"
#include "gpu/cuda_error.h"

namespace sluice::gpu {

Result<std::unique_ptr<Stream>> Stream::create(Completions& completions, const char* lane) {
  SLUICE_ASSIGN_OR_RETURN(Track * track, completions.add(lane));
  return std::unique_ptr<Stream>(new Stream(completions, track));
}

Stream::~Stream() {
  track_->drain();
  for (const cudaStream_t stream : {get(), track_->aside()})  // what no signal follows; what is told twice
    if (stream != nullptr) to_status(cudaStreamSynchronize(stream), "ending a stream").ignore();
  completions_.remove(track_);
}

bool Stream::enter() {
  if (failed_ || track_->failed() || completions_.is_lost()) return false;
  done(to_status(cudaSetDevice(completions_.device()), fmt::format("GPU {}", completions_.device())));
  return !failed_;
}

bool Stream::begin_work() {
  if (!enter()) return false;
  const cudaEvent_t begin = track_->begin_of(track_->last_value() + 1);
  if (begin != nullptr && !worked_) worked_ = to_status(cudaEventRecord(begin, get()), "timing a stream").ok();
  return true;
}

void Stream::done(const Status& status) {
  if (status.ok() || failed_) return;
  failed_ = true;
  track_->push({Track::Kind::failure, {}, 0, status});
}

void Stream::wait(const Event& event) {
  if (event.done()) return done(event.status());
  if (event.timeline() == &track_->timeline()) return;
  if (!enter()) return wait_aside(event);
  end_span();
  const Track* other = completions_.find(event.timeline());
  if (other != nullptr && other->has_event_of(event.value())) wait_on_device(*other, event);
  else wait_on_host(event);
}

// Only traced work has a begin.
void Stream::end_span() {
  if (worked_) (void)signal();
}

// In a failed stream: its signals still come after the Event, for the sake of those who wait for them. The
// stream itself no longer knows of it, so from here on its signals are left to the completions thread.
void Stream::wait_aside(const Event& event) {
  failed_ = true;
  track_->push({Track::Kind::device_wait, event, 0, {}});
}

void Stream::wait_on_device(const Track& other, const Event& event) {
  track_->push({Track::Kind::device_wait, event, 0, {}});
  done(to_status(cudaStreamWaitEvent(get(), other.event_of(event.value()), 0), "waiting for another stream"));
}

void Stream::wait_on_host(const Event& event) {
  if (!completions_.stream_memory_operations()) return done(event.wait());
  track_->push({Track::Kind::host_wait, event, ++tickets_, {}});
  const CUresult enqueued =
      completions_.driver().stream_wait_value(get(), track_->released_address(), tickets_, CU_STREAM_WAIT_VALUE_GEQ);
  done(to_status(enqueued, "making a stream wait"));
}

// Each of the two counters only grows, as one stream writes it.
Status Stream::write_counter(uint64_t value, bool aside) {
  if (aside)
    SLUICE_RETURN_IF_ERROR(
        to_status(cudaStreamWaitEvent(track_->aside(), track_->event_of(value), 0), "signalling aside"));
  const cudaStream_t by = aside ? track_->aside() : get();
  const CUdeviceptr to = aside ? track_->reached_aside_address() : track_->reached_address();
  return to_status(completions_.driver().stream_write_value(by, to, value, CU_STREAM_WRITE_VALUE_DEFAULT),
                   "signalling");
}

// Whether the stream will tell when it gets there. With the counter raised, its CUDA event has passed.
bool Stream::enqueue_signal(uint64_t value, bool aside) {
  const Status entered = to_status(cudaSetDevice(completions_.device()), "signalling");
  done(entered);
  if (!entered.ok()) return false;
  const Status recorded = to_status(cudaEventRecord(track_->event_of(value), get()), "signalling");
  Status written;
  if (completions_.stream_memory_operations()) written = recorded.ok() ? write_counter(value, aside) : recorded;
  if (recorded.ok()) track_->set_recorded(value);
  done(recorded);
  done(written);
  return completions_.stream_memory_operations() ? written.ok() : recorded.ok();
}

// Of a failed stream too: the Event comes when all that was enqueued and waited for before is through. Since calls
// were refused or left out, the stream alone cannot tell when that is; nor may others wait for it by CUDA events.
Event Stream::signal_by(bool aside) {
  const uint64_t value = track_->last_value() + 1;
  if (!completions_.stream_memory_operations() && value > Track::n_events)
    track_->timeline().wait(value - Track::n_events);  // its CUDA event is used again
  const bool told = !failed_ && !completions_.is_lost() && enqueue_signal(value, aside && track_->aside() != nullptr);
  track_->set_last_value(value);
  track_->push({told ? Track::Kind::signal : Track::Kind::bare_signal, {}, value, {}, bytes_, flops_, worked_});
  worked_ = false;
  bytes_ = flops_ = 0;
  return Event(track_->timeline(), value);
}

void Stream::reset() {
  track_->drain();
  track_->clear_failure();
  failed_ = false;
}

}  // namespace sluice::gpu
