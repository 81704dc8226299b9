// What the stand-in tells the sanitizers, if the program has one; else nothing happens.
//
// The stand-in itself is built without sanitizers, so ThreadSanitizer sees of it only calls that it intercepts
// (malloc, memcpy). What CUDA promises about order is told by release() and acquire(), and nothing else is: the
// stand-in's own locks (tests/standin/sync.h) are invisible.
#pragma once

#include <cstddef>
#include <cstdint>

namespace standin {

bool under_tsan();
bool under_asan();

// A point in an order. Never used twice for different things: what it once learnt it keeps.
struct Clock {
  uint64_t cell = 0;
};
// What this thread did so far comes before what any thread does after its acquire() of the same clock.
void release(const void* clock);
void acquire(const void* clock);

// While one lives, what the calling thread allocates, frees and touches is the stand-in's own business.
class Quiet {
 public:
  Quiet();
  ~Quiet();
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;
};

// A store with release and a load with acquire that ThreadSanitizer pairs with the program's own atomics.
void store_seen(uint64_t* to, uint64_t value);
uint64_t load_seen(const uint64_t* from);
// A load that it does not see.
uint64_t load_unseen(const uint64_t* from);

// One half of a switch between stacks, as the sanitizers know it.
struct SwitchSide {
  void* fake_stack = nullptr;  // AddressSanitizer's
  const void* stack_bottom = nullptr;
  size_t stack_bytes = 0;
  void* tsan_fiber = nullptr;
};
// Just before leaving `from` (null: for good) for `to`, and just after arriving in `self` from `previous`.
void before_switch(SwitchSide* from, const SwitchSide& to);
void after_switch(SwitchSide& self, SwitchSide& previous);
void* this_tsan_fiber();
void* create_tsan_fiber();
void destroy_tsan_fiber(void* fiber);
// Whether AddressSanitizer lets this memory be accessed. A stack whose frames were abandoned is unpoisoned before it
// is used again.
void poison(const void* memory, size_t bytes);
void unpoison(const void* memory, size_t bytes);

}  // namespace standin
