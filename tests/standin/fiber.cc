#include "tests/standin/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

// void standin_switch_stack(void** from, void* to): keeps what a call preserves on the old stack, whose pointer goes to
// *from, and takes it from the new one.
// standin_start_fiber: where a new stack begins; entry and argument lie in what became rbx and r12.
asm(R"(
  .text
  .globl standin_switch_stack
  .type standin_switch_stack, @function
standin_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size standin_switch_stack, . - standin_switch_stack

  .globl standin_start_fiber
  .type standin_start_fiber, @function
standin_start_fiber:
  subq $8, %rsp
  movq %r12, %rdi
  xorl %ebp, %ebp
  callq *%rbx
  ud2
  .size standin_start_fiber, . - standin_start_fiber
)");
extern "C" void standin_switch_stack(void** from, void* to);
extern "C" void standin_start_fiber();

namespace standin {
namespace {

constexpr size_t guard_bytes = 4096;

// The context that a switch left; read where it arrives.
__thread Context* left_context = nullptr;

struct StartFrame {  // as standin_switch_stack pops it
  void *r15, *r14, *r13, *r12, *rbx, *rbp;
  void (*resume)();
  void* end_of_stack;  // a return address of zero ends backtraces
};

}  // namespace

void switch_context(Context& from, Context& to) {
  left_context = &from;
  before_switch(&from.side, to.side);
  standin_switch_stack(&from.stack_pointer, to.stack_pointer);
  after_switch(from.side, left_context->side);
}

void exit_to(Context& to) {
  static __thread Context gone;
  left_context = &gone;
  before_switch(nullptr, to.side);
  standin_switch_stack(&gone.stack_pointer, to.stack_pointer);
  std::abort();
}

Stacks::Stacks(size_t n) : n_(n) {
  const size_t each = guard_bytes + stack_bytes;
  void* memory = mmap(nullptr, n * each, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return;
  memory_ = static_cast<std::byte*>(memory);
  madvise(memory_, n * each, MADV_NOHUGEPAGE);
  for (size_t i = 0; i < n; ++i) mprotect(memory_ + i * each, guard_bytes, PROT_NONE);
}

Stacks::~Stacks() {
  if (memory_ == nullptr) return;
  const size_t bytes = n_ * (guard_bytes + stack_bytes);
  unpoison(memory_, bytes);
  munmap(memory_, bytes);
}

std::byte* Stacks::bottom(size_t i) const { return memory_ + i * (guard_bytes + stack_bytes) + guard_bytes; }

namespace {

struct Start {
  void (*entry)(void*);
  void* argument;
  Context* context;
};

// The first frame of a fiber. `start` lies at the top of its stack.
void begin_fiber(void* memory) {
  const Start start = *static_cast<Start*>(memory);
  after_switch(start.context->side, left_context->side);
  start.entry(start.argument);
  std::abort();
}

}  // namespace

void make_context(Context& context, std::byte* stack_bottom, void (*entry)(void*), void* argument) {
  unpoison(stack_bottom, Stacks::stack_bytes);
  std::byte* top = stack_bottom + Stacks::stack_bytes;
  auto* start = reinterpret_cast<Start*>(top - 64);
  *start = {entry, argument, &context};
  auto* frame = reinterpret_cast<StartFrame*>(top - 64 - sizeof(StartFrame));
  *frame = {};
  frame->rbx = reinterpret_cast<void*>(begin_fiber);
  frame->r12 = start;
  frame->resume = standin_start_fiber;
  context.stack_pointer = frame;
  context.side = {nullptr, stack_bottom, Stacks::stack_bytes, create_tsan_fiber()};
}

void destroy_context(Context& context) {
  destroy_tsan_fiber(context.side.tsan_fiber);
  context = {};
}

}  // namespace standin
