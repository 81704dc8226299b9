#include "tests/standin/stream.h"

#include <pthread.h>

namespace standin {
namespace {

// Null when the stream has been destroyed and all is done.
Task* take(CUstream_st& stream) {
  Quiet quiet;
  Runtime& state = runtime();
  Guard guard(state.lock);
  while (stream.tasks.empty() && !stream.closing) stream.work.wait(state.lock);
  if (stream.tasks.empty()) return nullptr;
  Task* task = stream.tasks.front();
  stream.tasks.pop_front();
  return task;
}

void finish(CUstream_st& stream, Task* task) {
  release(&stream.done);
  Quiet quiet;
  Guard guard(runtime().lock);
  delete task;
  ++stream.finished;
  runtime().progress.notify_all();
}

void* run_stream(void* memory) {
  auto* stream = static_cast<CUstream_st*>(memory);
  {
    Quiet quiet;
    stream->grid = new Grid;
  }
  while (Task* task = take(*stream)) {
    acquire(&task->enqueued);
    execute(*stream, *task->operation);
    finish(*stream, task);
  }
  Quiet quiet;
  delete stream->grid;
  delete stream;
  Guard guard(runtime().lock);
  --runtime().stream_threads;
  runtime().progress.notify_all();
  return nullptr;
}

bool start_thread(CUstream_st* stream) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  const int result = pthread_create(&thread, &attributes, run_stream, stream);
  pthread_attr_destroy(&attributes);
  return result == 0;
}

bool idle(const CUstream_st& stream) { return stream.finished == stream.enqueued; }

void wait_idle(Runtime& state, const CUstream_st& stream) {
  while (!idle(stream)) state.progress.wait(state.lock);
  acquire(&stream.done);
}

}  // namespace

bool alive(const Runtime& state, cudaStream_t stream) { return state.streams.count(stream) > 0; }

cudaError_t enqueue(Runtime& state, cudaStream_t stream, Ref<Operation> operation) {
  if (!alive(state, stream)) return cudaErrorInvalidResourceHandle;
  if (stream->capture_broken) return cudaErrorStreamCaptureInvalidated;
  if (stream->capture) {
    stream->capture->list.push_back(std::move(operation));
    return cudaSuccess;
  }
  auto* task = new Task{std::move(operation), {}};
  release(&task->enqueued);
  stream->tasks.push_back(task);
  ++stream->enqueued;
  stream->work.notify_all();
  return cudaSuccess;
}

void execute(CUstream_st& stream, Operation& operation) {
  Runtime& state = runtime();
  bool works = false;
  {
    Guard guard(state.lock);
    works = state.failed == cudaSuccess;
    state.running += works ? 1 : 0;
  }
  if (works) {
    const cudaError_t result = operation.run(stream);
    release(&state.all_work);
    Guard guard(state.lock);
    if (result != cudaSuccess) state.fail_device(result);
    --state.running;
    state.progress.notify_all();
  }
  operation.end();
}

}  // namespace standin

using namespace standin;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned /*flags*/) {
  *stream = nullptr;
  return api(Call::stream_create, [&](Runtime& state) {
    auto* fresh = new CUstream_st;
    if (!start_thread(fresh)) {
      delete fresh;
      return cudaErrorOperatingSystem;
    }
    ++state.stream_threads;
    state.streams.insert(fresh);
    *stream = fresh;
    return cudaSuccess;
  });
}

// The stream's thread ends when its work is done.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return give_back(Call::stream_destroy, [&](Runtime& state) {
    if (state.streams.erase(stream) == 0) return cudaErrorInvalidResourceHandle;
    if (stream->capture && stream->capture_mode == cudaStreamCaptureModeGlobal) --state.global_captures;
    stream->closing = true;
    stream->work.notify_all();
    return cudaSuccess;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return api(Call::stream_synchronize, [&](Runtime& state) {
    if (!alive(state, stream)) return cudaErrorInvalidResourceHandle;
    if (stream->capture) return cudaErrorStreamCaptureUnsupported;
    wait_idle(state, *stream);
    return state.failed;
  });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return api(Call::stream_query, [&](Runtime& state) {
    if (!alive(state, stream)) return cudaErrorInvalidResourceHandle;
    if (stream->capture) return cudaErrorStreamCaptureUnsupported;
    if (!idle(*stream)) return cudaErrorNotReady;
    acquire(&stream->done);
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceSynchronize() {
  return api(Call::device_synchronize, [&](Runtime& state) {
    const auto all = state.streams;
    for (const CUstream_st* stream : all) wait_idle(state, *stream);
    return state.failed;
  });
}
