// Linked into a copy of the command: the nth allocation of the process fails (SLUICE_TEST_FAIL_NEW=n), and
// with SLUICE_TEST_FAIL_NEW_ON=1 every one behind it. SLUICE_TEST_COUNT_NEW=1: at the end the number of
// allocations is written to stderr.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace {

std::atomic<unsigned long> calls{0};

unsigned long number(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::strtoul(text, nullptr, 10);
}

const unsigned long failing = number("SLUICE_TEST_FAIL_NEW");
const bool and_later = number("SLUICE_TEST_FAIL_NEW_ON") != 0;

bool fails() {
  const unsigned long n = calls.fetch_add(1) + 1;
  return failing != 0 && (n == failing || (and_later && n > failing));
}

struct Count {
  ~Count() {
    if (number("SLUICE_TEST_COUNT_NEW") != 0) std::fprintf(stderr, "allocations: %lu\n", calls.load());
  }
} count;

}  // namespace

void* operator new(size_t bytes) {
  void* p = fails() ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void* operator new(size_t bytes, std::align_val_t alignment) {
  const auto to = static_cast<size_t>(alignment);
  void* p = fails() ? nullptr : std::aligned_alloc(to, (bytes + to - 1) / to * to);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }
