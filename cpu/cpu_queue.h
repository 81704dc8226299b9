// CpuQueue: the compute queue of the CPU, a bounded ring of commands that a team of threads works off.
//
// The team's leader walks the ring: it sleeps on Events, signals, and takes the team through each kernel
// with one barrier. A call too small to be worth the barrier runs on the leader alone, and products that
// read the same activations run one after the other without a barrier in between. Products are cut into
// more pieces than there are threads, taken as threads get free. Bits depend on none of this. While a
// thread waits it fetches the first of the weights of the next product into its cache. With nothing to do
// all threads sleep. Nothing is allocated after create(), but on failures.
#pragma once

#include <array>
#include <memory>
#include <thread>
#include <vector>

#include "core/queue.h"
#include "core/trace.h"
#include "cpu/dense_product.h"
#include "cpu/team.h"

namespace sluice::cpu {

// What the calls of one kernel came to since the queue was made.
struct KernelTotals {
  std::string_view name;
  uint64_t calls = 0;
  uint64_t bytes = 0, flops = 0;  // by core/kernel.h's cost()
  uint64_t busy_ns = 0;
};
inline constexpr size_t n_kernels = std::variant_size_v<KernelCall>;

struct CpuQueueOptions {
  const KernelTable* kernels = nullptr;
  DenseProduct* dense = nullptr;  // for activations in groups, made for as many threads; null: none. Outlives it
  TeamOptions team;
  Trace* trace = nullptr;         // gets a span on lane "cpu" for each call; outlives the queue
  uint32_t ring_commands = 1024;  // a power of two
};

class CpuQueue : public Queue {
 public:
  // unavailable if the system grants no more threads.
  static Result<std::unique_ptr<CpuQueue>> create(CpuQueueOptions options);
  ~CpuQueue() override;

  void wait(const Event& event) override;
  void launch(const KernelCall& call) override;
  Event signal() override;
  void reset() override;

  // From any thread; exact for all calls before an Event that is done. Indexed as KernelCall is.
  std::array<KernelTotals, n_kernels> totals() const;

 private:
  enum class Kind : uint8_t { call, wait, signal, reset, stop };
  struct Command {
    Kind kind = Kind::stop;
    Event event;
    uint64_t value = 0;
    KernelCall call;
  };
  // Written by the leader alone.
  struct Counters {
    std::atomic<uint64_t> calls{0}, bytes{0}, flops{0}, busy_ns{0};
  };

  CpuQueue(CpuQueueOptions options, std::unique_ptr<Team> team);
  Status start();
  void fail(const Status& status);
  Command& next_slot();
  void push();
  void publish();
  void lead();
  uint32_t execute(uint32_t index);
  void execute_other(Command& command);
  Command& at(uint32_t index) { return ring_[index & (ring_.size() - 1)]; }
  const KernelCall* peek_call(uint32_t index);
  uint32_t run_calls(uint32_t index);
  void run_group(const KernelCall* const* calls, uint32_t n, const MatmulCall* next);
  const MatmulCall* next_product(uint32_t index);
  void note_failure();
  void account(const KernelCall& call, const Cost& cost, uint64_t start_ns, uint64_t end_ns);

  const CpuQueueOptions options_;
  const std::unique_ptr<Team> team_;
  std::vector<Command> ring_;
  Timeline timeline_;

  // Of the enqueueing thread.
  alignas(128) uint32_t pushed_ = 0;  // published_ lags behind by less than publish_every launches
  uint32_t announced_ = 0;
  uint32_t known_consumed_ = 0;
  uint64_t last_value_ = 0;
  Timeline unprepared_;  // of products that could not be prepared
  uint64_t n_unprepared_ = 0;

  // Of the leader.
  alignas(128) Status failure_;
  uint64_t busy_since_ns_ = 0;  // end of the call just before this command; 0: there was a pause
  std::array<Counters, n_kernels> counters_;

  alignas(128) Gate published_;
  alignas(128) Gate consumed_;
  std::thread leader_;
};

}  // namespace sluice::cpu
