// Stores for tests of what stands on a Store: one that fails where it is told to, and one whose speed is
// a model. Both wrap another Store, which must outlive them, and pass the contract suite themselves.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/store.h"

namespace sluice::testing {

// What goes wrong: the nth request of a kind since the fault was set, counted from 1, or that and all
// later ones. The failed request is not made; a failed read leaves rubbish in its slot.
struct Fault {
  enum class Kind : uint8_t {
    eio,        // io_error, as of a broken disk
    shrunk,     // io_error, as of a file that ended early; the first half of the slot is untouched
    cancelled,  // cancelled, though nobody asked
  } kind = Kind::eio;
  IoRequest::Op op = IoRequest::Op::read;
  uint64_t nth = 1;
  bool and_later = false;
};

// Failures appear in the Event at once. Wrap it in a SlowStore for failures that take time.
class FaultyStore final : public Store {
 public:
  explicit FaultyStore(Store& inner) : inner_(inner) {}

  void set(const Fault& fault);  // replaces the one before; counting begins anew
  void clear();
  uint64_t faults() const;  // requests failed so far
  uint64_t seen(IoRequest::Op op) const;

  Result<FileId> open(const std::string& path) override { return inner_.open(path); }
  Result<FileId> create_spill(const std::string& directory, uint64_t bytes) override;
  void fail_spill(bool fail);  // create_spill() gives io_error
  void close(FileId file) override { inner_.close(file); }
  uint64_t size(FileId file) const override { return inner_.size(file); }
  void submit(std::span<const IoRequest> requests, std::span<Event> events) override;
  void cancel(std::span<const Event> events) override { inner_.cancel(events); }
  void use_region(std::span<std::byte> region) override { inner_.use_region(region); }
  StoreStats stats() const override;
  std::string describe() const override { return "faulty " + inner_.describe(); }

 private:
  bool strikes(const IoRequest& request);
  Event fail(const IoRequest& request);

  Store& inner_;
  mutable std::mutex mutex_;
  Fault fault_;
  bool armed_ = false, fail_spill_ = false;
  uint64_t seen_[2] = {0, 0};  // by op, since the fault was set
  std::deque<Timeline> failed_;
};

// A faulty store that keeps the one beneath it alive.
class OwnedFaultyStore final : public Store {
 public:
  explicit OwnedFaultyStore(std::unique_ptr<Store> inner) : inner_(std::move(inner)), faulty_(*inner_) {}
  FaultyStore& faults() { return faulty_; }
  // Called after each use_region().
  void when_region_changes(std::function<void()> hook) { region_changed_ = std::move(hook); }

  Result<FileId> open(const std::string& path) override { return faulty_.open(path); }
  Result<FileId> create_spill(const std::string& d, uint64_t n) override { return faulty_.create_spill(d, n); }
  void close(FileId file) override { faulty_.close(file); }
  uint64_t size(FileId file) const override { return faulty_.size(file); }
  void submit(std::span<const IoRequest> r, std::span<Event> e) override { faulty_.submit(r, e); }
  void cancel(std::span<const Event> events) override { faulty_.cancel(events); }
  void use_region(std::span<std::byte> region) override {
    faulty_.use_region(region);
    if (region_changed_) region_changed_();
  }
  StoreStats stats() const override { return faulty_.stats(); }
  std::string describe() const override { return faulty_.describe(); }

 private:
  std::unique_ptr<Store> inner_;
  FaultyStore faulty_;
  std::function<void()> region_changed_;
};

// Requests pass one after the other through a link of the given bandwidth, and each takes the latency on
// top; never faster than the store inside. Time is real.
class SlowStore final : public Store {
 public:
  struct Model {
    double bytes_per_second = 1e9;
    uint64_t latency_ns = 0;
    uint32_t slots = 64;
  };
  SlowStore(Store& inner, const Model& model);
  ~SlowStore() override;

  Result<FileId> open(const std::string& path) override { return inner_.open(path); }
  Result<FileId> create_spill(const std::string& directory, uint64_t bytes) override {
    return inner_.create_spill(directory, bytes);
  }
  void close(FileId file) override { inner_.close(file); }
  uint64_t size(FileId file) const override { return inner_.size(file); }
  void submit(std::span<const IoRequest> requests, std::span<Event> events) override;
  void cancel(std::span<const Event> events) override;
  void use_region(std::span<std::byte> region) override { inner_.use_region(region); }
  StoreStats stats() const override;
  std::string describe() const override { return "slow " + inner_.describe(); }

 private:
  struct Slot {
    Timeline timeline;
    uint64_t generation = 0;
    Event inner;
    uint64_t due_ns = 0, bytes = 0;
    IoRequest::Op op = IoRequest::Op::read;
    bool busy = false, cancelled = false;
  };
  using Lock = std::unique_lock<std::mutex>;

  void run();
  Slot* next();
  void end(Lock& lock, Slot& slot);
  void cancel_slot(Slot& slot);

  Store& inner_;
  const Model model_;
  mutable std::mutex mutex_;
  std::condition_variable changed_, freed_;
  std::vector<std::unique_ptr<Slot>> slots_;
  StoreStats own_;  // all but disk_bytes_read and bytes_read_buffered
  uint64_t link_free_ns_ = 0, busy_since_ns_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace sluice::testing
