// Ring: an io_uring with the flags that this kernel takes, and the memory registered with it.
#pragma once

#include <liburing.h>

#include <cstddef>
#include <span>
#include <string>

#include "sluice/status.h"

namespace sluice::storage {

// Belongs to the thread that calls open(); it also calls close(), with nothing in flight.
class Ring {
 public:
  Ring() = default;
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // Room for `entries` submissions at once and twice as many completions. Tries sets of flags from
  // `first_choice` on. unavailable names the reason and the remedy.
  Status open(uint32_t entries, uint32_t first_choice);

  // Unregisters the region and frees the ring, if open.
  void close();

  // Registers a region in parts of at most 1 GiB; says why not by returning a text, else nullptr. None is registered.
  const char* register_region(std::span<std::byte> region);
  // Nothing may be in flight: some kernels wait for all of it.
  void unregister_region();

  // The index of the registered part that holds a range, or -1.
  int registered_index(const std::byte* at, uint64_t bytes) const;

  io_uring* get() { return &ring_; }
  const char* flags() const { return flags_; }

 private:
  io_uring ring_{};
  bool opened_ = false;
  const char* flags_ = "";
  std::span<std::byte> region_;
};

}  // namespace sluice::storage
