// Stream: a CUDA stream that waits for Events and gives Events; what both kinds of queue share.
//
// wait(e), by what e is:
// - done: its status, at once;
// - of this stream: nothing, the stream is in order;
// - of another stream of this device: the stream waits for the CUDA event of that signal;
// - anything else (the CPU, a disk, another device): the stream waits for its `released` counter, which the
//   completions thread raises once e is done.
// A failed e fails the stream. If that shows only later, what stands in the stream behind the wait still
// runs, on whatever is in memory, and its results are those of a failed step; the Events behind it come when
// the stream has got there, so that memory is never given away under running work, and say what failed.
// A failed stream still keeps the order: its Events come after those that it was told to wait for.
//
// A signal costs the stream some 2 us, and while copies keep PCIe busy up to 15: it goes on when the counter has been
// written in the host's memory. signal_aside() leaves that to a second stream, which waits for the first one's CUDA
// event.
//
// Where work is traced, a wait that the stream has to make ends the span of the work before it: no span covers a wait.
//
// Without stream memory operations the last kind of wait makes the caller sleep until e is done: the only
// wait here that does not return at once. Hybrid plans are slower there, nothing else differs.
//
// The destructor finishes what was enqueued.
// Threads: one at a time.
#pragma once

#include <memory>

#include "core/event.h"
#include "gpu/completions.h"

namespace sluice::gpu {

class Stream {
 public:
  // `completions` outlives the stream; `lane` is its name in the trace, and outlives that.
  static Result<std::unique_ptr<Stream>> create(Completions& completions, const char* lane);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Before calls of CUDA that enqueue work: the device is made current in this thread.
  // False in a failed stream: what would be enqueued is to be skipped.
  bool begin_work();
  // The same for calls that enqueue nothing.
  bool enter();
  cudaStream_t get() const { return track_->stream(); }
  // What came of such a call; a failure fails the stream from here on.
  void done(const Status& status);
  // The bytes that such a call moves, and its operations, for the trace.
  void count(uint64_t bytes, uint64_t flops) {
    bytes_ += bytes;
    flops_ += flops;
  }

  void wait(const Event& event);
  Event signal() { return signal_by(false); }
  // As signal(), but what is enqueued behind need not wait for that, if the stream has one beside it.
  Event signal_aside() { return signal_by(true); }
  void reset();

 private:
  Stream(Completions& completions, Track* track) : completions_(completions), track_(track) {}
  void end_span();
  void wait_aside(const Event& event);
  void wait_on_device(const Track& other, const Event& event);
  void wait_on_host(const Event& event);
  Event signal_by(bool aside);
  bool enqueue_signal(uint64_t value, bool aside);
  Status write_counter(uint64_t value, bool aside);

  Completions& completions_;
  Track* const track_;
  bool failed_ = false;  // known at once, by the calls made here; the track tells what came later
  uint64_t tickets_ = 0;
  bool worked_ = false;  // since the last signal, and the begin is recorded
  uint64_t bytes_ = 0, flops_ = 0;
};

}  // namespace sluice::gpu
