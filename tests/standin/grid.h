// Runs a kernel's grid on the CPU: block after block, one fiber for each CUDA thread, all on the calling OS thread.
//
// A fiber runs until it meets a barrier or a collective, or ends; the next that is ready follows. The last to arrive
// lets the others go on. Nothing is ready and not all have ended: somebody missed a barrier, which fails the kernel
// with a line that says who waits where. Threads of a warp are run close together; nothing may be read into the order.
//
// For ThreadSanitizer each CUDA thread is a thread. What is before the launch comes before all of them, they come
// before what follows the kernel, and between them only block_barrier and warp_barrier order anything; shuffles and
// votes do not. Fibers are used again for the next block, so a race between thread i of one block and thread i of
// another is not seen; others between blocks are.
#pragma once

#include <sluice_standin/emulator.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/standin/fiber.h"

namespace standin {

struct Kernel {
  const char* name;
  uint32_t grid_x, grid_y, grid_z, block_x, block_y, shared_bytes;
  bool early;  // all of its threads have to wait for the kernels before it
  void (*call)(const void*);
  const void* arguments;
};

enum class Meeting : uint8_t {
  none,
  block_barrier,
  warp_barrier,
  shuffle,
  ballot,
  ldmatrix,
  mma_f16,
  mma_bf16,
  mma_s8
};

// What the lanes of a warp bring and take. Words of `in` are rewritten only by their lane, those of `out` only once
// all lanes have come again.
struct Exchange {
  uint32_t in[32][10];
  uint32_t out[32][4];
};

class Grid {
 public:
  Grid();
  ~Grid();
  Grid(const Grid&) = delete;
  Grid& operator=(const Grid&) = delete;

  // Empty, or what went wrong; the rest of the kernel is not run then.
  std::string run(const Kernel& kernel);

  // For the thread that is running.
  void meet_block(Site site);
  void meet_warp(Site site);  // orders memory; the collectives do not
  Exchange& exchange();
  // All lanes have put their words into in[lane]; the last to come calls complete().
  void collect(Meeting meeting, Site site, void (*complete)(Exchange&));
  void* shared_array(const void* key, const char* name, size_t bytes, Site site);
  void* dynamic_shared(Site site);
  void wait_for_previous();
  void async_start(const AsyncCopy& copy, Site site);
  void async_commit();
  bool async_next(uint32_t pending, AsyncCopy* copy);
  void transfer_init(const void* barrier, uint32_t threads, Site site);
  void transfer_expect(const void* barrier, uint32_t bytes, Site site);
  void transfer_start(const void* barrier, const RowCopy& copy, Site site);
  bool transfer_next(const void* barrier, uint32_t parity, RowCopy* copy, Site site);
  void transfer_end(const void* barrier, uint32_t parity);
  // Ends the kernel; never returns, so callers must own nothing.
  [[noreturn, gnu::format(printf, 3, 4)]] void fail(Site site, const char* format, ...);

  static Grid& running();  // of this OS thread

 private:
  enum class State : uint8_t { fresh, ready, waiting, ended };
  struct Warp;
  struct PendingCopy {
    AsyncCopy copy;
    uint32_t group;
  };
  struct Fiber {
    CudaThread thread;  // first: what the kernel sees
    Grid* grid;
    Warp* warp;
    State state;
    Meeting meeting;
    Site site;
    uint32_t block_barriers, warp_barriers;
    bool waited;  // for the kernels before this one
    Fiber* next;
    Context context;
    std::vector<PendingCopy> copies;  // in order of their start
    uint32_t committed;
  };
  struct Warp {
    Exchange exchange;
    uint32_t lanes, arrived, ended;
    Meeting meeting;
    Site site;
    Clock* clocks;
    Fiber* fibers;
  };
  // A barrier that tells when rows are there. What starts copies comes before whoever makes them, and that before all
  // who wait.
  struct Transfer {
    const void* barrier;
    uint32_t threads;            // that begin a use
    uint32_t begun;              // by so many threads: the current one
    uint32_t ended;              // uses
    uint32_t expected, started;  // bytes of the current one
    std::vector<RowCopy> copies;
    std::unique_ptr<Clock[]> clocks;  // for even and odd uses: started, there
    Clock* clock(uint32_t use, uint32_t which) const {
      return clocks == nullptr ? nullptr : &clocks[2 * (use % 2) + which];
    }
  };
  struct Shared {
    const void* key;
    const char* name;
    void* memory;
    size_t bytes;
    Site site;
  };

  bool prepare();
  void release_fibers();
  bool run_block(uint32_t x, uint32_t y, uint32_t z);
  void start_block();
  void end_block();
  void check_waited();
  void check_shared();
  void check_transfers();
  void check_early(const void* global, uint64_t bytes, Site site);
  Transfer& transfer(const void* barrier, Site site);
  static void fiber_main(void* fiber);
  void live(Fiber& self);
  void arrive(Meeting meeting, Site site);
  void push_back(Fiber& fiber);
  void push_front(Fiber& fiber);
  void give_way();  // to the next that is ready, or to the worker
  void resume_all(Fiber& self);
  void restart(Fiber& fiber);
  std::string missing();
  std::string place() const;
  void* add_shared(const void* key, const char* name, size_t bytes, Site site);

  Context worker_;
  std::unique_ptr<Stacks> stacks_;
  std::unique_ptr<Fiber[]> fibers_;
  std::unique_ptr<Warp[]> warps_;
  size_t n_fibers_ = 0;

  // Of the kernel.
  const Kernel* kernel_ = nullptr;
  Clock *start_ = nullptr, *end_ = nullptr;
  uint32_t threads_ = 0;
  bool first_ = false, last_ = false, retire_ = false;

  // Of the block.
  CudaBlock block_ = {};
  Clock* clocks_ = nullptr;  // two for the block, two for each warp
  std::vector<Shared> shared_;
  std::vector<Transfer> transfers_;
  size_t static_bytes_ = 0;
  uint32_t arrived_ = 0, ended_ = 0;
  Site barrier_ = {};
  Fiber *running_ = nullptr, *first_ready_ = nullptr, *last_ready_ = nullptr;
  std::string failure_;
};

}  // namespace standin
