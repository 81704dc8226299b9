// Fibers: stacks that one OS thread switches between. x86-64 Linux only.
//
// A Fiber belongs to the thread that made it and runs its body over and over: resumed, it runs the body once and
// hands back. A body that will never go on (its kernel failed) is abandoned by making the Fiber anew.
#pragma once

#include "tests/standin/sanitizers.h"

namespace standin {

// Where something that runs on a stack stopped.
struct Context {
  void* stack_pointer = nullptr;
  SwitchSide side;
};

// Leaves `from` for `to`; returns when somebody switches to `from` again.
void switch_context(Context& from, Context& to);
// Leaves for good.
[[noreturn]] void exit_to(Context& to);

// Stacks for a number of fibers, each with a page below it that faults.
class Stacks {
 public:
  static constexpr size_t stack_bytes = 256 * 1024;

  explicit Stacks(size_t n);
  ~Stacks();
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;

  bool ok() const { return memory_ != nullptr; }
  std::byte* bottom(size_t i) const;

 private:
  std::byte* memory_ = nullptr;
  size_t n_ = 0;
};

// A context that will call entry(argument) on the stack when first switched to. entry must not return.
void make_context(Context& context, std::byte* stack_bottom, void (*entry)(void*), void* argument);
// Before the stack goes away or is used anew.
void destroy_context(Context& context);

}  // namespace standin
