#include "storage/open_store.h"

#include "storage/pread_store.h"
#include "storage/uring_store.h"

namespace sluice::storage {

Result<std::unique_ptr<Store>> open_store(const StoreOptions& options, std::vector<std::string>* warnings) {
  if (options.force_pread) return make_pread_store(options);
  auto uring = make_uring_store(options);
  if (uring.ok() || uring.status().code() != Code::unavailable) return uring;
  if (warnings != nullptr) warnings->push_back(uring.status().message() + "; reading with pread instead");
  return make_pread_store(options);
}

}  // namespace sluice::storage
