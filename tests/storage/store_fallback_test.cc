// What a Store does where the machine lacks something: io_uring, direct I/O, O_TMPFILE, locked memory.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <cerrno>
#include <cstdlib>

#include "storage/open_store.h"
#include "tests/storage/store_contract.h"
#include "tests/storage/store_denied.h"

namespace sluice::testing {
namespace {

using namespace storage;
using Op = IoRequest::Op;

bool says(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// Opens a store with the options, reads some of a new file in it, and returns all warnings.
struct Trial {
  TempDir directory;
  std::vector<std::string> warnings;
  std::string describe;
  StoreStats stats;

  void run(StoreOptions options, bool cached) {
    const std::string path = directory.file("f");
    write_pattern_file(path, 300'000, 4);
    if (!cached) (void)posix_fadvise_dropped(path);
    options.warn = [&](const std::string& line) { warnings.push_back(line); };
    auto store = open_store(options, &warnings);
    REQUIRE_MESSAGE(store.ok(), store.status().message());
    for (int i = 0; i < 2; ++i) {
      auto file = (*store)->open(path);
      REQUIRE(file.ok());
      SlotMemory memory({*file, 1234, 250'000});
      const Status status = transfer(**store, Op::read, {*file, 1234, 250'000}, memory.slot());
      CHECK_MESSAGE(status.ok(), status.message());
      CHECK(memory.holds(4));
    }
    describe = (*store)->describe();
    stats = (*store)->stats();
  }
  static bool posix_fadvise_dropped(const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY);
    const bool ok = fdatasync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0;
    ::close(fd);
    return ok;
  }
};

TEST_CASE("store: here there is io_uring, with direct I/O and no warning") {
  Trial trial;
  trial.run({.mode = LoadMode::direct}, true);
  CHECK(trial.warnings.empty());
  CHECK(says(trial.describe, "io_uring"));
  CHECK(says(trial.describe, "O_DIRECT"));
  CHECK(trial.stats.bytes_read_buffered == 0);
}

TEST_CASE("store: auto reads from the page cache what is there, and around it what is not") {
  Trial cached, cold;
  cached.run({}, true);
  CHECK(cached.stats.bytes_read_buffered == cached.stats.bytes_read);
  cold.run({}, false);
  CHECK(cold.stats.bytes_read_buffered == 0);
  Trial pread_cached, pread_cold;
  pread_cached.run({.force_pread = true}, true);
  CHECK(pread_cached.stats.bytes_read_buffered == pread_cached.stats.bytes_read);
  pread_cold.run({.force_pread = true}, false);
  CHECK(pread_cold.stats.bytes_read_buffered == 0);
  CHECK(pread_cold.warnings.empty());
  CHECK(says(pread_cold.describe, "pread"));
}

TEST_CASE("store: without io_uring, pread and one warning with the remedy") {
  for (const uint32_t code : {EPERM, ENOSYS}) {
    run_denied({SYS_io_uring_setup, code}, [&] {
      Trial trial;
      trial.run({.mode = LoadMode::direct}, true);
      REQUIRE(trial.warnings.size() == 1);
      CHECK(says(trial.warnings[0], "io_uring"));
      CHECK(says(trial.warnings[0], code == EPERM ? "io_uring_disabled" : "Linux 5.6"));
      CHECK(says(trial.describe, "pread"));
      CHECK(trial.stats.bytes_read_buffered == 0);
    });
  }
}

TEST_CASE("store: where nobody tells the alignment, buffered and one warning") {
  run_denied({SYS_statx, ENOSYS}, [] {
    Trial trial;
    trial.run({}, false);
    REQUIRE(trial.warnings.size() == 1);
    CHECK(says(trial.warnings[0], "direct I/O"));
    CHECK(trial.stats.bytes_read_buffered == trial.stats.bytes_read);
    CHECK(says(trial.describe, "buffered"));
  });
}

TEST_CASE("store: where O_DIRECT cannot be opened, buffered and one warning") {
  run_denied({SYS_openat, EINVAL, 2, O_DIRECT}, [] {
    Trial trial;
    trial.run({.mode = LoadMode::direct}, false);
    REQUIRE(trial.warnings.size() == 1);
    CHECK(trial.stats.bytes_read_buffered == trial.stats.bytes_read);
  });
}

TEST_CASE("store: without cachestat, auto still sees what is cached") {
  for (const uint32_t code : {ENOSYS, EPERM}) {
    run_denied({451, code}, [] {
      Trial cached, cold;
      cached.run({}, true);
      CHECK(cached.stats.bytes_read_buffered == cached.stats.bytes_read);
      cold.run({}, false);
      CHECK(cold.stats.bytes_read_buffered == 0);
      CHECK(cold.warnings.empty());
    });
  }
}

TEST_CASE("store: without O_TMPFILE a spill file is made and unlinked") {
  run_denied({SYS_openat, EOPNOTSUPP, 2, O_TMPFILE & ~O_DIRECTORY}, [] {
    TempDir directory;
    auto store = open_store({}, nullptr);
    REQUIRE(store.ok());
    auto spill = (*store)->create_spill(directory.path(), 50'000);
    REQUIRE_MESSAGE(spill.ok(), spill.status().message());
    CHECK(std::filesystem::is_empty(directory.path()));
    SlotMemory out({*spill, 4096, 20'000}), in({*spill, 4096, 20'000});
    fill_pattern(out.payload(), 4096, 9);
    CHECK(transfer(**store, Op::write, {*spill, 4096, 20'000}, out.slot()).ok());
    CHECK(transfer(**store, Op::read, {*spill, 4096, 20'000}, in.slot()).ok());
    CHECK(in.holds(9));
  });
}

TEST_CASE("store: options out of bounds are named") {
  StoreOptions none{.slots = 0}, deep{.queue_depth = 5000}, odd{.piece_bytes = 5000}, choice{.ring_choice = 3};
  for (const StoreOptions& options : {none, deep, odd, choice}) {
    CHECK(open_store(options, nullptr).status().code() == Code::invalid_argument);
    StoreOptions pread = options;
    pread.force_pread = true;
    CHECK(open_store(pread, nullptr).status().code() == Code::invalid_argument);
  }
}

// The calling thread's right to lock any amount of memory, taken away while this lives.
class WithoutIpcLock {
 public:
  WithoutIpcLock() {
    syscall(SYS_capget, &header_, saved_);
    __user_cap_data_struct less[2] = {saved_[0], saved_[1]};
    less[CAP_TO_INDEX(CAP_IPC_LOCK)].effective &= ~CAP_TO_MASK(CAP_IPC_LOCK);
    syscall(SYS_capset, &header_, less);
  }
  ~WithoutIpcLock() { syscall(SYS_capset, &header_, saved_); }

 private:
  __user_cap_header_struct header_{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct saved_[2] = {};
};

TEST_CASE("store: memory is registered where the limit allows, and reads do not care") {
  const WithoutIpcLock unprivileged;
  rlimit saved{};
  getrlimit(RLIMIT_MEMLOCK, &saved);
  TempDir directory;
  write_pattern_file(directory.file("f"), 2 * MiB, 4);
  constexpr uint64_t region_bytes = 256 * KiB;
  std::unique_ptr<std::byte, void (*)(void*)> region(static_cast<std::byte*>(std::aligned_alloc(io_unit, region_bytes)),
                                                     std::free);
  for (const rlim_t limit : {rlim_t{MiB}, rlim_t{64 * KiB}, rlim_t{0}}) {
    const rlimit lowered{std::min(limit, saved.rlim_max), saved.rlim_max};
    REQUIRE(setrlimit(RLIMIT_MEMLOCK, &lowered) == 0);
    std::vector<std::string> warnings;
    auto store = open_store({.region = {region.get(), region_bytes}}, &warnings);
    setrlimit(RLIMIT_MEMLOCK, &saved);
    REQUIRE(store.ok());
    if (limit > 0) {
      CHECK(warnings.empty());
      CHECK(says((*store)->describe(), limit == MiB ? ", registered memory" : "memory not registered"));
    } else if (!warnings.empty()) {  // newer kernels count the ring itself
      CHECK(says(warnings[0], "ulimit -l"));
    }
    auto file = (*store)->open(directory.file("f"));
    REQUIRE(file.ok());
    // Wholly within the region, and across its end in memory that is not registered.
    const Extent inside{*file, 5000, 200'000};
    CHECK(transfer(**store, Op::read, inside, region.get()).ok());
    for (uint64_t i = 0; i < inside.bytes; ++i)
      if (region.get()[payload_offset(inside) + i] != pattern(inside.offset + i, 4)) FAIL("wrong byte");
    SlotMemory outside({*file, 77, MiB});
    CHECK(transfer(**store, Op::read, {*file, 77, MiB}, outside.slot()).ok());
    CHECK(outside.holds(4));
  }
}

bool is_tmpfs(const char* path) {
  struct statfs fs;
  return statfs(path, &fs) == 0 && fs.f_type == 0x01021994;
}

TEST_CASE("store: memory file systems are read buffered, with one warning for all their files") {
  if (!is_tmpfs("/dev/shm")) return;
  std::string name = "/dev/shm/sluice-test-XXXXXX";
  REQUIRE(mkdtemp(name.data()) != nullptr);
  const std::string one = name + "/1", two = name + "/2";
  write_pattern_file(one, 100'000, 4);
  write_pattern_file(two, 100'000, 4);
  std::vector<std::string> warnings;
  {
    auto store = open_store({.warn = [&](const std::string& line) { warnings.push_back(line); }}, &warnings);
    REQUIRE(store.ok());
    for (const std::string& path : {one, two}) {
      auto file = (*store)->open(path);
      REQUIRE(file.ok());
      SlotMemory memory({*file, 99, 90'000});
      CHECK(transfer(**store, Op::read, {*file, 99, 90'000}, memory.slot()).ok());
      CHECK(memory.holds(4));
    }
    CHECK(warnings.size() == 1);
    CHECK((*store)->stats().bytes_read_buffered == 180'000);
    auto spill = (*store)->create_spill(name, 64 * KiB);
    CHECK(spill.ok());
    REQUIRE(warnings.size() == 2);
    CHECK(says(warnings[1], "memory"));
  }
  std::filesystem::remove_all(name);
}

// A directory that holds 64 KiB, seen by the calling thread and those it starts only.
bool mount_tiny(const std::string& at) {
  return unshare(CLONE_FS | CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         mount("tmpfs", at.c_str(), "tmpfs", 0, "size=64k") == 0;
}

TEST_CASE("store: a full directory is an io_error that names it, when made and when written") {
  for (const bool force_pread : {false, true}) {
    TempDir directory;
    std::thread([&] {
      if (!mount_tiny(directory.path())) {
        MESSAGE("no right to mount: not tested");
        return;
      }
      auto store = open_store({.force_pread = force_pread}, nullptr);
      REQUIRE(store.ok());
      const Status too_large = (*store)->create_spill(directory.path(), 128 * KiB).status();
      CHECK(too_large.code() == Code::io_error);
      CHECK(says(too_large.message(), "131072"));
      CHECK(says(too_large.message(), "No space left"));
      auto one = (*store)->create_spill(directory.path(), 48 * KiB);
      auto two = (*store)->create_spill(directory.path(), 48 * KiB);
      REQUIRE(one.ok());
      REQUIRE(two.ok());
      SlotMemory memory({*one, 0, 48 * KiB});
      CHECK(transfer(**store, Op::write, {*one, 0, 48 * KiB}, memory.slot()).ok());
      const Status full = transfer(**store, Op::write, {*two, 0, 48 * KiB}, memory.slot());
      CHECK(full.code() == Code::io_error);
      CHECK(says(full.message(), directory.path().c_str()));
      CHECK(says(full.message(), "No space left"));
      (*store)->close(*one);
      CHECK(transfer(**store, Op::write, {*two, 0, 48 * KiB}, memory.slot()).ok());
    }).join();
  }
}

}  // namespace
}  // namespace sluice::testing
