// UringStore: a Store on io_uring.
//
// One thread owns the ring, sleeps in it, and is woken through an eventfd that the ring reads; other
// threads only list requests in slots. Each piece is one submission; reads go to O_DIRECT descriptors
// and, in LoadMode::automatic, pieces that are wholly in the page cache are copied from there. The
// completion queue is large enough for everything that can be in flight, so it never overflows.
//
// Sources: io_uring_setup(2), io_uring_enter(2), io_uring_register(2); liburing 2.3. SINGLE_ISSUER needs
// Linux 6.0, DEFER_TASKRUN 6.1, COOP_TASKRUN 5.19; plain rings with IORING_OP_READ 5.6.
#pragma once

#include <memory>

#include "core/store.h"
#include "storage/store_options.h"

namespace sluice::storage {

// unavailable, with the reason and its remedy, where the kernel or a container forbids io_uring.
Result<std::unique_ptr<Store>> make_uring_store(const StoreOptions& options);

}  // namespace sluice::storage
