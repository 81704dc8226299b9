// PreadStore: a Store on a pool of threads that call pread and pwrite, for kernels and containers
// without io_uring. Same contract, same paths around and through the page cache.
#pragma once

#include <memory>

#include "core/store.h"
#include "storage/store_options.h"

namespace sluice::storage {

// unavailable where no thread can be started.
Result<std::unique_ptr<Store>> make_pread_store(const StoreOptions& options);

}  // namespace sluice::storage
