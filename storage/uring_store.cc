#include "storage/uring_store.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <future>
#include <mutex>
#include <system_error>
#include <thread>

#include "core/error.h"
#include "storage/store_base.h"
#include "storage/uring_ring.h"

namespace sluice::storage {
namespace {

constexpr uint64_t wake_tag = UINT64_MAX, cancel_tag = UINT64_MAX - 1;  // others are indices of flights

class UringStore final : public StoreBase {
 public:
  explicit UringStore(const StoreOptions& options) : StoreBase(options), flights_(options.queue_depth) {
    for (uint32_t i = options.queue_depth; i-- > 0;) free_flights_.push_back(i);
  }
  ~UringStore() override;

  Status start();
  void use_region(std::span<std::byte> region) override;
  std::string describe() const override;

 private:
  // A piece that the kernel has, or will have at the next enter().
  struct Flight {
    Piece piece;
    bool used = false;
    bool cancel_sent = false;
  };

  void wake() override;
  void run(std::promise<Status> started);
  Status open_ring();
  void loop();
  void issue();
  void prepare(uint32_t index);
  void arm_wake();
  void send_cancels();
  void enter();
  void reap();
  void complete(uint64_t tag, int result);
  void register_region(std::span<std::byte> region);
  bool region_wanted() const { return region_wanted_.load(std::memory_order_acquire); }
  bool quiet() const { return free_flights_.size() == flights_.size() && cancels_ == 0 && !wake_armed_; }
  void change_region();

  UniqueFd wake_fd_;
  std::atomic<bool> wake_sent_{false};
  std::thread thread_;

  mutable std::mutex region_mutex_;
  std::condition_variable region_changed_;
  std::atomic<bool> region_wanted_{false};  // another one than now
  std::span<std::byte> next_region_;
  std::string ring_description_, region_description_;

  // The rest belongs to the thread.
  Ring ring_;
  std::vector<Flight> flights_;
  std::vector<uint32_t> free_flights_;
  uint64_t wake_count_ = 0;  // what the ring reads from the eventfd
  bool wake_armed_ = false;
  uint32_t cancels_ = 0;  // submitted and not answered
};

UringStore::~UringStore() {
  if (!thread_.joinable()) return;
  stop();
  thread_.join();
}

Status UringStore::start() {
  wake_fd_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
  if (!wake_fd_.valid()) return error(Code::unavailable, "eventfd: {}", strerror(errno));
  std::promise<Status> started;
  std::future<Status> result = started.get_future();
  try {
    thread_ = std::thread(&UringStore::run, this, std::move(started));
  } catch (const std::system_error& e) {
    return error(Code::unavailable, "no thread for the store: {}", e.what());
  }
  Status status = result.get();
  if (!status.ok()) thread_.join();
  return status;
}

std::string UringStore::describe() const {
  std::lock_guard lock(region_mutex_);
  return ring_description_ + region_description_ + ", " + describe_files();
}

void UringStore::use_region(std::span<std::byte> region) {
  std::unique_lock lock(region_mutex_);
  next_region_ = region;
  region_wanted_.store(true, std::memory_order_release);
  wake();
  region_changed_.wait(lock, [this] { return !region_wanted(); });
}

void UringStore::wake() {
  if (wake_sent_.exchange(true, std::memory_order_acq_rel)) return;
  const uint64_t one = 1;
  while (write(wake_fd_.get(), &one, sizeof one) < 0 && errno == EINTR) continue;
}

// A ring belongs to the task that made it, so all of its life is here.
void UringStore::run(std::promise<Status> started) {
  pthread_setname_np(pthread_self(), "sluice-io");
  sigset_t all;  // signals are for the program's own threads
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  Status status = open_ring();
  const bool ok = status.ok();
  started.set_value(std::move(status));
  if (ok) loop();
  ring_.close();
}

Status UringStore::open_ring() {
  // Everything that can be submitted at once: each piece, a cancel for it, and the wake-up.
  SLUICE_RETURN_IF_ERROR(ring_.open(2 * options().queue_depth + 1, options().ring_choice));
  ring_description_ = fmt::format("io_uring, {} deep, {}", options().queue_depth, ring_.flags());
  std::lock_guard lock(region_mutex_);
  register_region(options().region);
  return {};
}

// Under the lock.
void UringStore::register_region(std::span<std::byte> region) {
  ring_.unregister_region();
  const char* why_not = region.empty() ? nullptr : ring_.register_region(region);
  region_description_ = region.empty()       ? ""
                        : why_not == nullptr ? ", registered memory"
                                             : fmt::format(", memory not registered ({})", why_not);
}

// While a region is wanted nothing new is begun; the wake-up that told of it has ended by then, or will.
void UringStore::change_region() {
  if (!region_wanted() || !quiet()) return;
  {
    std::lock_guard lock(region_mutex_);
    register_region(next_region_);
    region_wanted_.store(false, std::memory_order_release);
  }
  region_changed_.notify_all();
  arm_wake();
}

void UringStore::loop() {
  arm_wake();
  for (;;) {
    change_region();
    if (!region_wanted()) issue();
    if (idle() && cancels_ == 0) break;
    enter();
    reap();
  }
  while (wake_armed_) {  // its buffer is ours: it must end before we do
    wake();
    enter();
    reap();
  }
}

void UringStore::issue() {
  Piece piece;
  while (!free_flights_.empty() && next_piece(piece)) {
    const uint32_t index = free_flights_.back();
    free_flights_.pop_back();
    flights_[index] = {piece, true, false};
    prepare(index);
  }
}

void UringStore::prepare(uint32_t index) {
  const Piece& p = flights_[index].piece;
  io_uring_sqe* sqe = io_uring_get_sqe(ring_.get());
  SLUICE_CHECK(sqe != nullptr);
  const int fd = p.file->fd(p.direct), part = ring_.registered_index(p.at, p.bytes);
  const unsigned bytes = static_cast<unsigned>(p.bytes);
  if (p.write && part >= 0) io_uring_prep_write_fixed(sqe, fd, p.at, bytes, p.offset, part);
  else if (p.write) io_uring_prep_write(sqe, fd, p.at, bytes, p.offset);
  else if (part >= 0) io_uring_prep_read_fixed(sqe, fd, p.at, bytes, p.offset, part);
  else io_uring_prep_read(sqe, fd, p.at, bytes, p.offset);
  io_uring_sqe_set_data64(sqe, index);
}

void UringStore::arm_wake() {
  io_uring_sqe* sqe = io_uring_get_sqe(ring_.get());
  SLUICE_CHECK(sqe != nullptr);
  io_uring_prep_read(sqe, wake_fd_.get(), &wake_count_, sizeof wake_count_, 0);
  io_uring_sqe_set_data64(sqe, wake_tag);
  wake_armed_ = true;
}

// Where a piece ends before its cancel arrives, the cancel may hit the next one in its flight; that one
// is then simply made again.
void UringStore::send_cancels() {
  for (uint32_t i = 0; i < flights_.size(); ++i) {
    Flight& flight = flights_[i];
    if (!flight.used || flight.cancel_sent || !stopped(flight.piece)) continue;
    if (cancels_ == flights_.size()) return;
    io_uring_sqe* sqe = io_uring_get_sqe(ring_.get());
    SLUICE_CHECK(sqe != nullptr);
    io_uring_prep_cancel64(sqe, i, 0);
    io_uring_sqe_set_data64(sqe, cancel_tag);
    flight.cancel_sent = true;
    ++cancels_;
  }
}

// Submits what was prepared and sleeps until something has completed.
void UringStore::enter() {
  const int result = io_uring_submit_and_wait(ring_.get(), 1);
  if (result >= 0 || result == -EINTR || result == -EBUSY) return;
  SLUICE_CHECK(result == -EAGAIN || result == -ENOMEM);
  std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the kernel lacks memory: later, then
}

void UringStore::reap() {
  io_uring_cqe* cqe = nullptr;
  while (io_uring_peek_cqe(ring_.get(), &cqe) == 0) {
    const uint64_t tag = io_uring_cqe_get_data64(cqe);
    const int result = cqe->res;
    io_uring_cqe_seen(ring_.get(), cqe);
    complete(tag, result);
  }
}

void UringStore::complete(uint64_t tag, int result) {
  if (tag == cancel_tag) {
    --cancels_;
    return;
  }
  if (tag == wake_tag) {
    wake_armed_ = false;
    wake_sent_.exchange(false, std::memory_order_acq_rel);
    send_cancels();
    if (!idle() && !region_wanted()) arm_wake();
    return;
  }
  Flight& flight = flights_[tag];
  Status why;
  const Step step = advance_piece(flight.piece, result, why);
  if (step == Step::again) return prepare(static_cast<uint32_t>(tag));
  flight.used = false;
  free_flights_.push_back(static_cast<uint32_t>(tag));
  finish_piece(flight.piece, step, why);
}

}  // namespace

Result<std::unique_ptr<Store>> make_uring_store(const StoreOptions& options) {
  SLUICE_RETURN_IF_ERROR(validate(options));
  auto store = std::make_unique<UringStore>(options);
  SLUICE_RETURN_IF_ERROR(store->start());
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace sluice::storage
