#include "tests/standin/sanitizers.h"

// Present only in a program that is linked with the sanitizer.
extern "C" {
[[gnu::weak]] void AnnotateIgnoreReadsBegin(const char* file, int line);
[[gnu::weak]] void AnnotateIgnoreReadsEnd(const char* file, int line);
[[gnu::weak]] void AnnotateIgnoreWritesBegin(const char* file, int line);
[[gnu::weak]] void AnnotateIgnoreWritesEnd(const char* file, int line);
[[gnu::weak]] void __tsan_acquire(void* address);
[[gnu::weak]] void __tsan_release(void* address);
[[gnu::weak]] void* __tsan_get_current_fiber();
[[gnu::weak]] void* __tsan_create_fiber(unsigned flags);
[[gnu::weak]] void __tsan_destroy_fiber(void* fiber);
[[gnu::weak]] void __tsan_switch_to_fiber(void* fiber, unsigned flags);
[[gnu::weak]] uint64_t __tsan_atomic64_load(const volatile uint64_t* from, int order);
[[gnu::weak]] void __tsan_atomic64_store(volatile uint64_t* to, uint64_t value, int order);
[[gnu::weak]] void __asan_poison_memory_region(const volatile void* address, size_t bytes);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void* address, size_t bytes);
[[gnu::weak]] void __asan_init();
[[gnu::weak]] void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t bytes);
[[gnu::weak]] void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* bytes);
}

namespace standin {
namespace {

constexpr unsigned no_sync = 1;  // __tsan_switch_to_fiber_no_sync

}  // namespace

bool under_tsan() { return __tsan_switch_to_fiber != nullptr; }
bool under_asan() { return __asan_init != nullptr; }

void release(const void* clock) {
  if (under_tsan()) __tsan_release(const_cast<void*>(clock));
}
void acquire(const void* clock) {
  if (under_tsan()) __tsan_acquire(const_cast<void*>(clock));
}

Quiet::Quiet() {
  if (!under_tsan()) return;
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}
Quiet::~Quiet() {
  if (!under_tsan()) return;
  AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}

void store_seen(uint64_t* to, uint64_t value) {
  if (under_tsan()) return __tsan_atomic64_store(to, value, __ATOMIC_RELEASE);
  __atomic_store_n(to, value, __ATOMIC_RELEASE);
}
uint64_t load_seen(const uint64_t* from) {
  if (under_tsan()) return __tsan_atomic64_load(from, __ATOMIC_ACQUIRE);
  return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}
uint64_t load_unseen(const uint64_t* from) { return __atomic_load_n(from, __ATOMIC_ACQUIRE); }

void before_switch(SwitchSide* from, const SwitchSide& to) {
  if (__sanitizer_start_switch_fiber != nullptr) {
    __sanitizer_start_switch_fiber(from == nullptr ? nullptr : &from->fake_stack, to.stack_bottom, to.stack_bytes);
  }
  if (under_tsan()) __tsan_switch_to_fiber(to.tsan_fiber, no_sync);
}
void after_switch(SwitchSide& self, SwitchSide& previous) {
  if (__sanitizer_finish_switch_fiber == nullptr) return;
  __sanitizer_finish_switch_fiber(self.fake_stack, &previous.stack_bottom, &previous.stack_bytes);
}

void* this_tsan_fiber() { return under_tsan() ? __tsan_get_current_fiber() : nullptr; }
void* create_tsan_fiber() { return under_tsan() ? __tsan_create_fiber(0) : nullptr; }
void destroy_tsan_fiber(void* fiber) {
  if (fiber != nullptr) __tsan_destroy_fiber(fiber);
}
void poison(const void* memory, size_t bytes) {
  if (under_asan()) __asan_poison_memory_region(memory, bytes);
}
void unpoison(const void* memory, size_t bytes) {
  if (under_asan()) __asan_unpoison_memory_region(memory, bytes);
}

}  // namespace standin
