// Chooses the Store for this machine: io_uring, or pread where that is not allowed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/store.h"
#include "storage/store_options.h"

namespace sluice::storage {

// Where io_uring is not available and was not declined by force_pread, one line with the reason and its
// remedy is added to `warnings`, which may be null. What is met later goes to options.warn.
Result<std::unique_ptr<Store>> open_store(const StoreOptions& options, std::vector<std::string>* warnings);

}  // namespace sluice::storage
