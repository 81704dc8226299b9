// A Store whose files are in RAM: modelled time, any order of completion, and faults where a test wants
// them. Contract: core/store.h.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "core/store.h"

namespace sluice::testing {

class MemoryStore : public Store {
 public:
  struct Options {
    uint32_t slots = 64;                  // requests in flight; more make submit() wait
    double bytes_per_s = 0;               // 0: as fast as memcpy
    std::chrono::nanoseconds latency{0};  // of each request, not overlapped
    bool shuffle = false;                 // requests end in a random order
    uint64_t seed = 1;
  };
  MemoryStore() : MemoryStore(Options()) {}
  explicit MemoryStore(const Options& options);
  ~MemoryStore() override;

  void add_file(std::string path, std::vector<std::byte> bytes);
  // Is told of each request (counted from 1 since this call) when its turn comes; true: io_error.
  using Fault = std::function<bool(uint64_t n, const IoRequest& request)>;
  void set_fault(Fault fault);
  void fail_request(uint64_t n) {
    set_fault([n](uint64_t i, const IoRequest&) { return i == n; });
  }
  // Nothing ends between hold() and resume(), but what is cancelled.
  void hold();
  void resume();
  uint32_t open_files() const;

  Result<FileId> open(const std::string& path) override;
  // A directory whose name begins with "missing" is not there.
  Result<FileId> create_spill(const std::string& directory, uint64_t bytes) override;
  void close(FileId file) override;
  uint64_t size(FileId file) const override;
  void submit(std::span<const IoRequest> requests, std::span<Event> events) override;
  void cancel(std::span<const Event> events) override;
  void use_region(std::span<std::byte>) override {}
  StoreStats stats() const override;
  std::string describe() const override { return "files in memory"; }

 private:
  struct File {
    std::shared_ptr<std::vector<std::byte>> bytes;
    bool open = false;
  };
  struct Slot {
    Timeline timeline;
    uint64_t value = 0;
    IoRequest request;
    bool busy = false, cancelled = false;
  };
  void run();
  size_t pick();
  Status perform(const IoRequest& request, uint64_t n, bool cancelled);
  Status transfer(const IoRequest& request);
  void count(const IoRequest& request, const Status& status);

  const Options options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::shared_ptr<std::vector<std::byte>>> named_;
  std::vector<File> files_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<uint32_t> free_slots_;
  std::deque<uint32_t> queue_;
  Fault fault_;
  uint64_t n_performed_ = 0;
  bool held_ = false, stop_ = false;
  std::mt19937_64 random_;
  StoreStats stats_;
  std::thread thread_;
};

}  // namespace sluice::testing
