// Memory whose overruns show: AddressSanitizer sees them where they happen; without it a guard behind the memory
// tells of writes, once somebody looks.
#pragma once

#include <cstddef>

namespace standin {

// Filled with 0xFF; null if there is none. alignment: a power of two, at least 16.
void* guarded_alloc(size_t bytes, size_t alignment);
bool guard_intact(const void* memory, size_t bytes);
void guarded_free(void* memory);

}  // namespace standin
