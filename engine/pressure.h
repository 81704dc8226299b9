// Pressure: when an engine whose --ram was left open takes less of the machine's memory, and when it may take more
// again.
//
// How much has to be free. What the kernel calls available can be taken without swapping. When it comes to an end the
// page cache goes first, from which others live, then memory is swapped out: that of others, since ours is often locked
// for I/O or a GPU; at last the largest process is killed, which is likely this one. A program that grows takes one or
// two GB in the second between two looks. So the low mark is a sixteenth of the budget that was affordable at first, at
// least 256 MiB and at most 2 GiB, but never more than half of what that budget left free. An engine that is below it
// goes to where twice the mark is free; it grows again when four times as much has been free for a while, and then
// leaves twice the mark too, so that it does not swing.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

namespace sluice::engine {

// What is given to an engine of so much free memory; the rest is for the page cache and the others.
uint64_t affordable_ram(uint64_t free);

struct MemoryState {
  uint64_t free = 0;    // of the machine
  uint64_t budget = 0;  // of this engine,
  uint64_t used = 0;    // and what it holds of it
  uint64_t most = 0;    // what the budget may be: that which it began with
};
// Free memory below which an engine that began with the budget `most` gives some back.
uint64_t low_mark(uint64_t most);
// The budget to go to: a smaller one (0: none is affordable), a larger one, or nothing.
std::optional<uint64_t> wanted_budget(const MemoryState& state, uint64_t low);

class Pressure {
 public:
  struct Options {
    std::function<uint64_t()> free_memory;       // of the machine; empty: as the system says
    uint64_t low = 0;                            // 0: low_mark()
    uint64_t interval_ns = 1'000'000'000;        // between looks
    uint64_t calm_ns = 10'000'000'000;           // so long much has to be free before the engine grows
    uint64_t after_refusal_ns = 60'000'000'000;  // until it is tried again to go to another budget
  };
  // `most`: the budget that the engine began with; 0: it is not ours to change.
  Pressure(const Options& options, uint64_t most) : options_(options), most_(most) {}

  uint64_t free_memory() const;
  // Whether it is time to look; at most once in an interval.
  bool due(uint64_t now_ns);
  // The budget to go to now, given what there is.
  std::optional<uint64_t> decide(MemoryState state, uint64_t now_ns);
  // The engine could not go there. Whether this is the first time, and so worth a word.
  bool refused(uint64_t now_ns);
  // The user has given another budget, or (0 as above) taken this out of our hands.
  void begin(uint64_t most);

 private:
  Options options_;
  uint64_t most_;
  uint64_t next_look_ns_ = 0;
  std::optional<uint64_t> calm_since_ns_;
  bool told_ = false;
};

}  // namespace sluice::engine
