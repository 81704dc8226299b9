// Job: I/O that the BlockTable wants started, as plain data.
//
// The table fills Jobs under its lock; the Transfers start them without it, fill the results in, and the
// Jobs go back to BlockTable::started(). Until then the copy is marked as starting and its memory, its
// source and its place in the spill file stay as they are.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "core/block.h"
#include "core/event.h"
#include "offload/tier/event_set.h"

namespace sluice::tier {

struct Job {
  enum class Kind : uint8_t {
    load,      // bring a copy from files or from another memory tier
    copy_out,  // a dirty copy to host memory, because files cannot be written from where it is
    write,     // a dirty copy, or its staged image, to the spill file
  };
  enum class Source : uint8_t { home, spill, memory };

  Kind kind = Kind::load;
  Source source = Source::home;  // of a load
  const Block* block = nullptr;
  TierId tier, from;             // of the copy; of the memory that a load copies from
  std::byte* slot = nullptr;     // of the copy
  std::byte* staging = nullptr;  // host memory between files and the slot; null if not needed
  const std::byte* from_slot = nullptr;
  Event source_ready;  // what a copy from from_slot waits for: its load,
  EventSet after;      // and those who use it
  Extent spill;
  uint64_t sum = 0;        // of the bytes in the spill file: what a load has to find; of a write a result
  std::span<Event> parts;  // room for the reads of a home with several extents

  // Results.
  Event io;    // the read beneath a staged load, the copy_out, or the write
  Event done;  // of a load: when the copy may be read
};

// A bounded list of Jobs on the stack.
class JobList {
 public:
  static constexpr size_t capacity = 32;
  bool full() const { return size_ == capacity; }
  bool empty() const { return size_ == 0; }
  Job& add() { return jobs_[size_++] = Job(); }
  void clear() { size_ = 0; }
  std::span<Job> all() { return {jobs_.data(), size_}; }

 private:
  std::array<Job, capacity> jobs_;
  size_t size_ = 0;
};

}  // namespace sluice::tier
