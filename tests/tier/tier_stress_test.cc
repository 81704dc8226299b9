// Random work on few bytes from one and from four threads, with random faults, against a model that
// knows what every block holds.
#include <atomic>
#include <deque>
#include <mutex>
#include <random>
#include <shared_mutex>

#include "core/error.h"
#include "tests/tier/rig.h"

namespace sluice::testing {
namespace {

using tier::CopyState;
using tier::Pin;

std::atomic<uint64_t> n_wrong{0};
void expect(bool right, const char* what) {
  if (right) return;
  if (n_wrong++ < 5) std::fprintf(stderr, "stress: %s\n", what);
}

// Where a block's bytes are, and what they should be. Seed 0 is the file's content.
struct Content {
  std::vector<std::pair<std::byte*, uint64_t>> parts;
  std::vector<uint64_t> offsets;  // of the parts in the file, if it has a home there

  Content(const Block& block, const Pin& pin) {
    if (block.home.empty()) parts.emplace_back(pin.data(), block.bytes);
    for (size_t i = 0; i < block.home.size(); ++i) {
      parts.emplace_back(pin.data(i), block.home[i].bytes);
      offsets.push_back(block.home[i].offset);
    }
  }
  bool is(uint64_t seed) const {
    for (size_t i = 0; i < parts.size(); ++i) {
      const bool same = seed == 0 ? holds(parts[i].first, parts[i].second, Rig::file_seed, offsets[i])
                                  : holds(parts[i].first, parts[i].second, seed, i << 20);
      if (!same) return false;
    }
    return true;
  }
  void write(uint64_t seed) const {
    for (size_t i = 0; i < parts.size(); ++i) fill(parts[i].first, parts[i].second, seed, i << 20);
  }
};

// One block of the model. `mutex` is held shared to use the block and alone to change it.
struct Subject {
  std::shared_mutex mutex;
  BlockId id;
  bool has_content = false;
  int references = 0;
  std::atomic<uint64_t> seed{0};
  std::atomic<int> late_readers{0}, late_writers{0};
};

// A queue of a device: works on memory after it was enqueued, and signals then.
class LateWorker {
 public:
  LateWorker() : thread_([this] { run(); }) {}
  ~LateWorker() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Event enqueue(std::function<void()> work) {
    std::lock_guard lock(mutex_);
    work_.push_back(std::move(work));
    changed_.notify_all();
    return Event(timeline_, ++enqueued_);
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    for (uint64_t n = 1;; ++n) {
      changed_.wait(lock, [this] { return stop_ || !work_.empty(); });
      if (work_.empty()) return;
      const std::function<void()> work = std::move(work_.front());
      work_.pop_front();
      lock.unlock();
      std::this_thread::sleep_for(std::chrono::microseconds(n % 7 * 20));
      work();
      timeline_.signal(n);
      lock.lock();
    }
  }
  Timeline timeline_;
  uint64_t enqueued_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> work_;
  bool stop_ = false;
  std::thread thread_;
};

struct Stress {
  explicit Stress(Rig& r) : rig(r) {}

  Rig& rig;
  std::array<Subject, 24> subjects;
  std::array<LateWorker, 2> late;
  std::atomic<uint64_t> next_seed{100}, verified{0}, written{0}, failed{0};

  TierId any_tier(std::mt19937& random) const { return random() % 2 == 0 ? rig.host : rig.device; }

  void renew(Subject& s, std::mt19937& random) {
    s.references = 1;
    s.seed = 0;
    if (random() % 2 == 0) {
      s.id = rig.born(1 + random() % 12000);
      s.has_content = false;
      return;
    }
    std::vector<Extent> home(1 + random() % 3);
    for (Extent& e : home) e = {FileId{}, random() % (Rig::file_bytes - 5000), 1 + random() % 4000};
    s.id = rig.add_home(std::move(home)).value();
    s.has_content = true;
  }

  void fetch(std::mt19937& random) {
    std::vector<std::shared_lock<std::shared_mutex>> locks;
    std::vector<BlockId> ids;
    const size_t first = random() % subjects.size(), n = 1 + random() % 5;
    for (size_t i = first; i < first + n && i < subjects.size(); ++i) {
      std::shared_lock lock(subjects[i].mutex, std::try_to_lock);
      if (!lock || !subjects[i].has_content) continue;
      ids.push_back(subjects[i].id);
      locks.push_back(std::move(lock));
    }
    size_t done = 0;
    const TierId tier = any_tier(random);
    const Status status = rig.tiers->fetch(ids, tier, done);
    locks.clear();
    expect(done <= ids.size() && (done == ids.size()) == status.ok(), "fetch: count");
    expect(status.ok() || status.code() == Code::over_budget || status.code() == Code::unavailable, "fetch: status");
    if (!status.ok() && random() % 2 == 0) wait_for_room(tier);
  }

  void wait_for_room(TierId tier) {
    const Event next = rig.tiers->pending(tier);
    next.wait().ignore();
    rig.tiers->poll();
  }

  void read(std::mt19937& random) {
    Subject& s = subjects[random() % subjects.size()];
    std::shared_lock lock(s.mutex, std::try_to_lock);
    if (!lock || s.late_writers > 0) return;
    auto pin = rig.tiers->pin(s.id, any_tier(random));
    if (!pin.ok()) return;
    if (!pin->ready().wait().ok()) {
      ++failed;
      return;
    }
    const Content content(rig.tiers->block(s.id), *pin);
    const uint64_t seed = s.seed;
    expect(content.is(seed), "read: content");
    ++verified;
    if (random() % 2 == 0) return;
    ++s.late_readers;
    pin->release(late[random() % 2].enqueue([content, seed, &s] {
      expect(content.is(seed), "late read: content");
      --s.late_readers;
    }));
  }

  // A writer must know that nobody reads its copy: not the model's readers, not a copy being made of it.
  bool alone(const Subject& s) {
    if (s.late_readers > 0 || s.late_writers > 0) return false;
    rig.tiers->poll();
    return rig.tiers->state(s.id, rig.host) != CopyState::loading &&
           rig.tiers->state(s.id, rig.device) != CopyState::loading;
  }

  void write(std::mt19937& random) {
    Subject& s = subjects[random() % subjects.size()];
    std::unique_lock lock(s.mutex, std::try_to_lock);
    if (!lock || s.references != 1 || !alone(s)) return;
    const TierId tier = any_tier(random);
    auto pin = s.has_content ? rig.tiers->pin(s.id, tier) : rig.tiers->create(s.id, tier);
    if (!pin.ok()) return;
    const Content content(rig.tiers->block(s.id), *pin);
    const uint64_t seed = next_seed++;
    ++written;
    if (!s.has_content || random() % 2 == 0) {
      if (!pin->ready().wait().ok()) return;
      content.write(seed);
      if (s.has_content) pin->mark_dirty();
      s.has_content = true;
      s.seed = seed;
    } else {
      write_late(s, *pin, content, seed, random);
    }
  }

  // As an executor does it: the work is enqueued behind the load, and nobody waits.
  void load_and_write(std::mt19937& random) {
    Subject& s = subjects[random() % subjects.size()];
    std::unique_lock lock(s.mutex, std::try_to_lock);
    if (!lock || s.references != 1 || !s.has_content || !alone(s)) return;
    const TierId tier = any_tier(random);
    if (!rig.tiers->fetch(s.id, tier).ok()) return;
    auto pin = rig.tiers->pin(s.id, tier);
    if (!pin.ok()) return;
    const Content content(rig.tiers->block(s.id), *pin);
    write_late(s, *pin, content, next_seed++, random);
  }

  void write_late(Subject& s, Pin& pin, const Content& content, uint64_t seed, std::mt19937& random) {
    pin.mark_dirty();
    ++s.late_writers;
    const Event ready = pin.ready();
    pin.release(late[random() % 2].enqueue([content, seed, ready, &s, this] {
      if (ready.wait().ok()) {
        content.write(seed);
        s.seed = seed;
      } else {
        ++failed;
      }
      --s.late_writers;
    }));
  }

  void evict_or_cancel(std::mt19937& random) {
    Subject& s = subjects[random() % subjects.size()];
    std::shared_lock lock(s.mutex, std::try_to_lock);
    if (!lock) return;
    const TierId tier = any_tier(random);
    if (random() % 8 == 0) return rig.tiers->cancel(s.id, tier);
    const Status status = rig.tiers->evict(s.id, tier);
    expect(status.ok() || status.code() == Code::over_budget || status.code() == Code::invalid_argument ||
               status.code() == Code::io_error || status.code() == Code::cancelled,
           "evict: status");
  }

  void share_or_drop(std::mt19937& random) {
    Subject& s = subjects[random() % subjects.size()];
    std::unique_lock lock(s.mutex, std::try_to_lock);
    if (!lock || s.late_writers > 0) return;
    if (random() % 3 != 0) {
      rig.tiers->share(s.id);
      ++s.references;
    }
    for (int n = static_cast<int>(random() % 2) + 1; n > 0 && s.references > 0; --n) {
      rig.tiers->drop(s.id);
      --s.references;
    }
    if (s.references == 0) renew(s, random);
  }

  void run(uint32_t seed, int steps) {
    std::mt19937 random(seed);
    for (int i = 0; i < steps; ++i) {
      const uint32_t dice = random() % 100;
      if (dice < 25) fetch(random);
      else if (dice < 45) read(random);
      else if (dice < 60) write(random);
      else if (dice < 67) load_and_write(random);
      else if (dice < 88) evict_or_cancel(random);
      else if (dice < 91) share_or_drop(random);
      else rig.tiers->poll();
    }
  }

  // Without faults everything is still there.
  void check_all() {
    for (LateWorker& worker : late) worker.enqueue([] {}).wait().ignore();
    rig.settle();
    for (Subject& s : subjects) {
      if (!s.has_content) continue;
      for (int attempt = 0; attempt < 3 && !rig.tiers->fetch(s.id, rig.host).ok(); ++attempt) {
        for (Subject& other : subjects)
          for (const TierId tier : {rig.device, rig.host}) rig.tiers->evict(other.id, tier).ignore();
        rig.settle();
      }
      auto pin = rig.tiers->pin(s.id, rig.host);
      REQUIRE_MESSAGE(pin.ok(), pin.status().message());
      REQUIRE(pin->ready().wait().ok());
      CHECK(Content(rig.tiers->block(s.id), *pin).is(s.seed));
    }
    for (Subject& s : subjects)
      for (; s.references > 0; --s.references) rig.tiers->drop(s.id);
    rig.settle();
    CHECK(rig.host_budget.used() == 0);
    CHECK(rig.device_budget.used() == 0);
  }
};

void stress(uint32_t threads, int steps, uint32_t seed, bool faults) {
  RigOptions o;
  o.host_bytes = 128 * KiB;
  o.host_budget = 100 * KiB;
  o.device_bytes = 72 * KiB;
  o.device_budget = 80 * KiB;
  o.spill_bytes = 256 * KiB;
  o.max_blocks = 2000;
  o.store = {.slots = 16, .shuffle = true, .seed = seed};
  Rig rig(o);
  Stress s(rig);
  std::mt19937 random(seed);
  for (Subject& subject : s.subjects) s.renew(subject, random);
  std::mt19937 fault_random(seed + 99);
  if (faults) {
    rig.memory_store->set_fault([&](uint64_t, const IoRequest&) { return fault_random() % 25 == 0; });
    rig.up.fail_copy(29, true);
    rig.down.fail_copy(23, true);
  }
  n_wrong = 0;
  std::vector<std::thread> workers;
  for (uint32_t t = 0; t < threads; ++t) workers.emplace_back([&, t] { s.run(seed * 17 + t, steps); });
  for (std::thread& w : workers) w.join();
  rig.memory_store->set_fault({});
  rig.up.fail_copy(0);
  rig.down.fail_copy(0);
  s.check_all();
  CHECK(n_wrong == 0);
  CHECK(rig.host_budget.peak() <= 100 * KiB);
  CHECK(rig.device_budget.peak() <= 80 * KiB);
  // The course has met what it is there for.
  CHECK(s.verified > 50);
  CHECK(s.written > 50);
  CHECK(rig.store->stats().writes > 50);
  CHECK(rig.tiers->transfers().done > 100);
  CHECK((rig.tiers->transfers().failed > 10) == faults);
}

TEST_CASE("stress: one thread") {
  for (uint32_t seed = 1; seed <= 4; ++seed) stress(1, 15000, seed, false);
}
TEST_CASE("stress: one thread, with faults") {
  for (uint32_t seed = 1; seed <= 6; ++seed) stress(1, 15000, seed, true);
}
TEST_CASE("stress: four threads") {
  for (uint32_t seed = 1; seed <= 2; ++seed) stress(4, 8000, seed, false);
}
TEST_CASE("stress: four threads, with faults") {
  for (uint32_t seed = 1; seed <= 4; ++seed) stress(4, 8000, seed, true);
}

}  // namespace
}  // namespace sluice::testing
