// Completions: one thread for each GPU that carries progress between its streams and the host's Events.
//
// Each stream has counters in mapped host memory. `reached` is raised by the stream itself, at every
// signal() of its queue, with a stream memory operation, or `reached_aside` by a stream beside it; this thread
// sees it and signals the queue's Timeline. `released` is what the stream waits on where work of the CPU or of
// a disk comes first: this thread raises it once that Event is done. So neither the thread that enqueues nor the
// GPU ever waits for a synchronization of the host.
//
// CUDA does not know of the order that these counters make, hence streams of one GPU also wait for each
// other with CUDA events (gpu/stream.h); statuses still travel here: a signal counts as reached only when
// all Events that its queue waited for are done, and carries the first failure among them.
//
// Trouble. When a signal is not reached for a while, the thread asks CUDA how its stream is. An error that
// stays means that the device is lost: all Events that are under way, and all later ones, then fail with
// what CUDA said, and whoever waits goes on. So also ends a signal whose stream memory operation CUDA had
// refused: when the stream is through with all its work.
// (A stream must not be asked while it is captured: graphs are captured on streams of their own.)
//
// Where a device has no stream memory operations, signals are CUDA events that this thread polls; see
// gpu/stream.h for what becomes of waiting.
//
// With a Trace, the work between two signals becomes a span of the stream's lane, with its bytes and operations
// and the GPU's own times of its begin and end. A span whose CUDA events were used again before this thread came to
// it is counted as dropped.
//
// The thread spins for a moment after something has moved, then naps for some 10 us between looks, and
// sleeps when nothing is under way. It allocates nothing, but for the text of a failure.
// Threads: add() and remove() from any; a Track's push side by the one thread that enqueues.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/event.h"
#include "core/trace.h"
#include "gpu/driver.h"
#include "gpu/gpu_memory.h"

namespace sluice::gpu {

// What one stream and the completions thread share: a bounded ring of what comes in which order.
class Track {
 public:
  static constexpr uint32_t ring_entries = 1024;  // a power of two
  static constexpr uint32_t n_events = 64;        // CUDA events, one for each of the latest signals

  enum class Kind : uint8_t {
    host_wait,    // `event`, then let the stream on by raising `released` to `value`
    device_wait,  // `event`, which the stream waits for by itself, or no longer
    failure,      // `status`, of a call that was refused
    signal,       // the Timeline's `value`
    bare_signal,  // likewise, but nothing in the stream tells when: once it is through with all its work
  };
  struct Entry {
    Kind kind = Kind::signal;
    Event event;
    uint64_t value = 0;
    Status status;                  // of a failure, or of an Event whose Timeline has gone
    uint64_t bytes = 0, flops = 0;  // of the work that a signal ends
    bool worked = false;            // there is some, and its begin was recorded
  };

  // Of the enqueueing thread. push() sleeps while the ring is full.
  void push(Entry entry);
  void drain();          // sleeps until all that was pushed is settled
  void clear_failure();  // when drained
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  Timeline& timeline() { return timeline_; }
  cudaStream_t stream() const { return stream_; }
  cudaStream_t aside() const { return aside_; }  // null if there is none
  // The CUDA event of a signal, as long as it is that signal's; any thread may ask. Half of the events are left
  // to signals that come meanwhile.
  cudaEvent_t event_of(uint64_t value) const { return events_[value % n_events]; }
  bool has_event_of(uint64_t value) const {
    return recorded_[value % n_events].load(std::memory_order_acquire) == value &&
           value + n_events / 2 > last_value_.load(std::memory_order_acquire);
  }
  void set_recorded(uint64_t value) { recorded_[value % n_events].store(value, std::memory_order_release); }
  // The CUDA event at which the work before a signal begins; null without a Trace.
  cudaEvent_t begin_of(uint64_t value) const { return begins_[value % n_events]; }
  uint64_t last_value() const { return last_value_.load(std::memory_order_relaxed); }
  void set_last_value(uint64_t value) { last_value_.store(value, std::memory_order_release); }
  CUdeviceptr reached_address() const { return reinterpret_cast<CUdeviceptr>(reached_); }
  CUdeviceptr reached_aside_address() const { return reinterpret_cast<CUdeviceptr>(reached_aside_); }
  CUdeviceptr released_address() const { return reinterpret_cast<CUdeviceptr>(released_); }

 private:
  friend class Completions;
  struct Progress {
    bool moved = false, pending = false;
  };

  explicit Track(bool polled) : polled_(polled), ring_(ring_entries) {}
  Entry& at(uint32_t index) { return ring_[index & (ring_entries - 1)]; }
  Progress advance(const Status* lost);
  void release_waits(uint32_t end, bool lost);
  bool settle(Entry& entry, uint32_t index, const Status* lost);
  void forget(const Timeline& timeline);
  bool reached(uint64_t value) const;
  void note(const Status& status);
  void record_span(const Entry& entry);
  const Entry* awaited();
  void stream_is_idle();

  const bool polled_;
  cudaStream_t stream_ = nullptr, aside_ = nullptr;
  std::array<cudaEvent_t, n_events> events_{}, begins_{};
  std::array<std::atomic<uint64_t>, n_events> recorded_{};  // whose signal each event is
  cudaEvent_t base_ = nullptr;                              // passed at base_ns_
  uint64_t base_ns_ = 0;
  Trace* trace_ = nullptr;
  const char* lane_ = "";
  uint64_t *reached_ = nullptr, *reached_aside_ = nullptr, *released_ = nullptr;  // mapped
  Timeline timeline_;
  std::vector<Entry> ring_;
  std::atomic<uint32_t>* pushes_ = nullptr;  // of all tracks; wakes the thread
  std::atomic<uint64_t> last_value_{0};
  alignas(128) std::atomic<uint32_t> pushed_{0};
  alignas(128) std::atomic<uint32_t> settled_{0};
  std::atomic<bool> failed_{false};

  // Of the completions thread.
  alignas(128) uint32_t next_release_ = 0, next_settle_ = 0;
  uint64_t reached_at_least_ = 0;  // known from the stream's state
  uint64_t moved_ns_ = 0;
  Status failure_;
};

class Completions {
 public:
  struct Options {
    int device = 0;
    bool stream_memory_operations = true;  // false: do without them even where the device has them
    uint64_t spin_ns = 50'000;             // after the last move, before it naps
    uint64_t check_ns = 2'000'000;         // without a move, before CUDA is asked (sooner in a failed stream)
    Trace* trace = nullptr;                // outlives the streams
  };
  // CUDA spreads streams over 8 channels (CUDA_DEVICE_MAX_CONNECTIONS); streams that shared one would wait for
  // each other, and with waits for the host that could be for ever. The first ones have one beside them.
  static constexpr uint32_t max_streams = 6, max_aside = 2;

  // unavailable if the device or the driver does not answer.
  static Result<std::unique_ptr<Completions>> create(const Options& options);
  ~Completions();  // no streams may be left

  int device() const { return options_.device; }
  bool stream_memory_operations() const { return driver_.stream_memory_operations; }
  const Driver& driver() const { return driver_; }
  bool is_lost() const { return is_lost_.load(std::memory_order_acquire); }
  Status lost() const;  // why the device has stopped working; ok while it works

  // Makes a stream with its events and counters, and one for signals aside while there are less than max_aside of
  // these; `lane` is what the trace calls it, and outlives the trace. unavailable if there are max_streams.
  Result<Track*> add(const char* lane);
  // The track is drained. Others may still have entries that wait for its Events.
  void remove(Track* track);
  // The track to which a Timeline belongs; null if it is not of this device. The Timeline must be alive.
  Track* find(const Timeline* timeline) const;

 private:
  struct Counters {
    alignas(128) uint64_t reached;
    alignas(128) uint64_t reached_aside;
    alignas(128) uint64_t released;
  };
  Completions(const Options& options, const Driver& driver, std::unique_ptr<PinnedMemory> counters)
      : options_(options), driver_(driver), counters_(std::move(counters)) {}
  Status start();
  Status make_stream(Track& track, bool aside);
  Status make_timing(Track& track);
  static Status match_clocks(Track& track);
  static void destroy_stream(Track& track);
  void run();
  Track::Progress look();
  void check(Track& track);
  void lose(const Status& status);

  const Options options_;
  const Driver driver_;
  const std::unique_ptr<PinnedMemory> counters_;
  std::atomic<uint32_t> pushes_{0};
  std::atomic<bool> stop_{false}, is_lost_{false};
  std::array<std::atomic<const Timeline*>, max_streams> timelines_{};
  std::array<std::unique_ptr<Track>, max_streams> tracks_;
  mutable std::mutex mutex_;  // tracks_ against the thread, lost_
  Status lost_;
  std::thread thread_;
};

}  // namespace sluice::gpu
