#include "tests/standin/event.h"

namespace standin {
namespace {

class RecordOperation : public Operation {
 public:
  explicit RecordOperation(Ref<Record> record) : record_(std::move(record)) {}
  cudaError_t run(CUstream_st&) override { return cudaSuccess; }
  void end() override {
    release(&record_->clock);
    Guard guard(runtime().lock);
    record_->done = true;
    record_->time_ns = now_ns();
    runtime().progress.notify_all();
  }

 private:
  Ref<Record> record_;
};

class WaitEventOperation : public Operation {
 public:
  explicit WaitEventOperation(Ref<Record> record) : record_(std::move(record)) {}
  cudaError_t run(CUstream_st&) override {
    {
      Runtime& state = runtime();
      Guard guard(state.lock);
      while (!record_->done && state.failed == cudaSuccess) state.progress.wait(state.lock);
    }
    acquire(&record_->clock);
    return cudaSuccess;
  }

 private:
  Ref<Record> record_;
};

bool alive(const Runtime& state, cudaEvent_t event) { return state.events.count(event) > 0; }

}  // namespace
}  // namespace standin

using namespace standin;

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = nullptr;
  return api(Call::event_create, [&](Runtime& state) {
    *event = new CUevent_st;
    (*event)->timed = (flags & cudaEventDisableTiming) == 0;
    state.events.insert(*event);
    return cudaSuccess;
  });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return give_back(Call::event_destroy, [&](Runtime& state) {
    if (state.events.erase(event) == 0) return cudaErrorInvalidResourceHandle;
    delete event;
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return api(Call::event_record, [&](Runtime& state) {
    if (!alive(state, event) || !alive(state, stream)) return cudaErrorInvalidResourceHandle;
    event->captured_in = stream->capture;
    if (stream->capture) return cudaSuccess;
    event->last = Ref<Record>(new Record);
    return enqueue(state, stream, Ref<Operation>(new RecordOperation(event->last)));
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned /*flags*/) {
  return api(Call::stream_wait_event, [&](Runtime& state) {
    if (!alive(state, event) || !alive(state, stream)) return cudaErrorInvalidResourceHandle;
    if (event->captured_in.get() != stream->capture.get()) {  // forks and joins of a capture are not emulated
      stream->capture_broken = static_cast<bool>(stream->capture);
      return stream->capture ? cudaErrorStreamCaptureIsolation : cudaErrorStreamCaptureUnsupported;
    }
    if (stream->capture || !event->last) return cudaSuccess;
    return enqueue(state, stream, Ref<Operation>(new WaitEventOperation(event->last)));
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return api(Call::event_query, [&](Runtime& state) {
    if (!alive(state, event)) return cudaErrorInvalidResourceHandle;
    if (event->captured_in) return cudaErrorCapturedEvent;
    if (!event->last) return cudaSuccess;
    if (!event->last->done) return cudaErrorNotReady;
    acquire(&event->last->clock);
    return cudaSuccess;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return api(Call::event_synchronize, [&](Runtime& state) {
    if (!alive(state, event)) return cudaErrorInvalidResourceHandle;
    if (event->captured_in) return cudaErrorCapturedEvent;
    const Ref<Record> record = event->last;
    if (!record) return cudaSuccess;
    while (!record->done) state.progress.wait(state.lock);
    acquire(&record->clock);
    return state.failed;
  });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return api(Call::event_elapsed_time, [&](Runtime& state) {
    for (const cudaEvent_t event : {start, end}) {
      if (!alive(state, event) || !event->timed || !event->last) return cudaErrorInvalidResourceHandle;
      if (!event->last->done) return cudaErrorNotReady;
    }
    const auto ns = static_cast<int64_t>(end->last->time_ns - start->last->time_ns);
    *milliseconds = static_cast<float>(static_cast<double>(ns) * 1e-6);
    return cudaSuccess;
  });
}
