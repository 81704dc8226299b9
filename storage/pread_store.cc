#include "storage/pread_store.h"

#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <system_error>
#include <thread>
#include <vector>

#include "core/error.h"
#include "storage/store_base.h"

namespace sluice::storage {
namespace {

class PreadStore final : public StoreBase {
 public:
  explicit PreadStore(const StoreOptions& options) : StoreBase(options) {}
  ~PreadStore() override {
    stop();
    for (std::thread& thread : threads_) thread.join();
  }

  Status start();
  std::string describe() const override {
    return fmt::format("pread, {} threads, {}", threads_.size(), describe_files());
  }

 private:
  void wake() override {}  // the threads sleep in wait_piece() and look for cancellation themselves
  void run();

  std::vector<std::thread> threads_;
};

Status PreadStore::start() {
  try {
    for (uint32_t i = 0; i < options().pread_threads; ++i) threads_.emplace_back(&PreadStore::run, this);
  } catch (const std::system_error& e) {
    if (threads_.empty()) return error(Code::unavailable, "no thread for the store: {}", e.what());
  }
  return {};
}

int64_t move_once(const Piece& p) {
  const int fd = p.file->fd(p.direct);
  const auto at = static_cast<off_t>(p.offset);
  const ssize_t result = p.write ? pwrite(fd, p.at, p.bytes, at) : pread(fd, p.at, p.bytes, at);
  return result >= 0 ? result : -errno;
}

void PreadStore::run() {
  pthread_setname_np(pthread_self(), "sluice-io");
  sigset_t all;  // signals are for the program's own threads
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  Piece piece;
  while (wait_piece(piece)) {
    Status why;
    Step step = stopped(piece) ? Step::cancelled : Step::again;
    while (step == Step::again) step = advance_piece(piece, move_once(piece), why);
    finish_piece(piece, step, why);
  }
}

}  // namespace

Result<std::unique_ptr<Store>> make_pread_store(const StoreOptions& options) {
  SLUICE_RETURN_IF_ERROR(validate(options));
  auto store = std::make_unique<PreadStore>(options);
  SLUICE_RETURN_IF_ERROR(store->start());
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace sluice::storage
