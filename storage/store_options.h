// What a Store is made with; shared by its implementations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "core/bytes.h"
#include "core/trace.h"

namespace sluice::storage {

enum class LoadMode : uint8_t {
  automatic,  // reads go around the page cache, but for what is already in it
  direct,     // reads and writes go around the page cache wherever the file system can
  buffered,   // everything goes through the page cache
};
std::string_view to_string(LoadMode mode);

struct StoreOptions {
  LoadMode mode = LoadMode::automatic;
  uint32_t slots = 256;            // requests in flight before submit() waits, 1 to 65536
  uint32_t queue_depth = 64;       // pieces that the kernel works on at a time, 1 to 4096
  uint64_t piece_bytes = 1 * MiB;  // larger requests are cut into these; a multiple of io_unit, to 1 GiB
  uint32_t pread_threads = 8;      // of the pool that serves where there is no io_uring, 1 to 256
  bool force_pread = false;        // no io_uring even where the kernel has it
  uint32_t ring_choice = 0;        // first of the sets of ring flags to try, 0 (best) to 2 (plainest)

  // Memory that most slots lie in, or empty. It is registered with the kernel where RLIMIT_MEMLOCK
  // allows, which spares each read the look-up of its pages and makes the region resident. It must
  // outlive the store, or be replaced before (Store::use_region).
  std::span<std::byte> region = {};

  Trace* trace = nullptr;  // spans go to its lane "disk"; must outlive the store

  // Called with one line for each fallback met while running, such as a file system without direct I/O.
  // From any thread, with no lock held but the one that keeps calls apart; must not call the store.
  std::function<void(const std::string&)> warn = {};
};

// invalid_argument naming the first field that is out of its bounds.
Status validate(const StoreOptions& options);

}  // namespace sluice::storage
