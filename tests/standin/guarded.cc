#include "tests/standin/guarded.h"

#include <cstdint>
#include <cstdlib>

#include "tests/standin/sanitizers.h"

namespace standin {
namespace {

constexpr size_t guard_bytes = 64;
constexpr unsigned char guard_byte = 0xA5;

}  // namespace

void* guarded_alloc(size_t bytes, size_t alignment) {
  const size_t guard = under_asan() ? 0 : guard_bytes;
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, bytes + guard) != 0) return nullptr;
  __builtin_memset(memory, 0xFF, bytes);
  if (guard > 0) __builtin_memset(static_cast<unsigned char*>(memory) + bytes, guard_byte, guard);
  return memory;
}

bool guard_intact(const void* memory, size_t bytes) {
  if (under_asan()) return true;
  const auto* guard = static_cast<const unsigned char*>(memory) + bytes;
  for (size_t i = 0; i < guard_bytes; ++i) {
    if (guard[i] != guard_byte) return false;
  }
  return true;
}

void guarded_free(void* memory) { free(memory); }

}  // namespace standin
