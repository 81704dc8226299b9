// Copies: sizes, directions, what is made as one, and both directions at a time.
#include "core/trace.h"
#include "gpu/staged_copy_queue.h"
#include "tests/gpu/gpu_rig.h"

namespace sluice::testing {
namespace {

std::byte pattern(uint64_t i) { return static_cast<std::byte>(i * 131 + i / 251); }

TEST_CASE("gpu copies: any size at any address, there, across and back") {
  GpuRig rig;
  std::byte* const host = rig.pinned->base();
  std::byte* const device = rig.device->base();
  for (const uint64_t bytes : {1ull, 3ull, 16ull, 4095ull, 4096ull, 10001ull}) {
    for (const uint64_t at : {0ull, 1ull, 37ull}) {
      for (uint64_t i = 0; i < bytes; ++i) host[at + i] = pattern(i);
      rig.up->copy(device + at, host + at, bytes);
      rig.up->copy(device + 32 * KiB, device + at, bytes);
      rig.down->wait(rig.up->signal());
      rig.down->copy(host + 32 * KiB, device + 32 * KiB, bytes);
      REQUIRE(rig.down->signal().wait().ok());
      for (uint64_t i = 0; i < bytes; ++i) REQUIRE(host[32 * KiB + i] == pattern(i));
    }
  }
}

TEST_CASE("gpu copies: pieces that continue each other are one copy") {
  GpuRig rig;
  std::byte* const host = rig.pinned->base();
  std::byte* const device = rig.device->base();
  for (uint64_t i = 0; i < 8; ++i) rig.up->copy(device + i * 100, host + i * 100, 100);
  CHECK(rig.up->signal().wait().ok());
  CHECK(rig.up->copies() == 1);
  CHECK(rig.up->bytes_copied() == 800);
  rig.up->copy(device, host, 100);
  rig.up->copy(device + 100, host + 200, 100);  // on one side alone
  rig.up->copy(device + 300, host + 300, 100);
  rig.up->copy(device + 400, host + 400, 0);
  CHECK(rig.up->signal().wait().ok());
  CHECK(rig.up->copies() == 4);
  rig.up->copy(device, host, 100);
  rig.up->wait(Event());
  rig.up->copy(device + 100, host + 100, 100);  // a wait comes between
  CHECK(rig.up->signal().wait().ok());
  CHECK(rig.up->copies() == 6);
}

TEST_CASE("gpu copies: both directions at a time take as long as one") {
  GpuRigOptions o;
  o.standin.latency_us = 20000;
  GpuRig rig(o);
  const uint64_t start = now_ns();
  rig.send(0);
  const Event up = rig.up->signal();
  rig.receive(1);
  const Event down = rig.down->signal();
  CHECK(now_ns() - start < 20'000'000);  // nobody waited
  CHECK(up.wait().ok());
  CHECK(down.wait().ok());
  CHECK(now_ns() - start >= 20'000'000);
}

TEST_CASE("gpu copies: what a failed queue was given is not copied") {
  GpuRig rig;
  rig.host.signal(1, Status(Code::cancelled, "enough"));
  rig.up->wait(Event(rig.host, 1));
  rig.send(0);
  CHECK(rig.up->signal().wait().code() == Code::cancelled);
  CHECK(rig.up->copies() == 0);
  rig.up->reset();
  rig.send(0);
  CHECK(rig.up->signal().wait().ok());
  CHECK(rig.up->copies() == 1);
}

// Host memory that nobody has pinned, with a small ring between it and the device.
class StagedRig {
 public:
  using Direction = gpu::StagedCopyQueue::Direction;
  explicit StagedRig(uint64_t ring_bytes)
      : up_ring(gpu::PinnedMemory::allocate(0, ring_bytes).value()),
        down_ring(gpu::PinnedMemory::allocate(0, ring_bytes).value()),
        up(gpu::StagedCopyQueue::create(*rig.completions, *up_ring, Direction::to_device).value()),
        down(gpu::StagedCopyQueue::create(*rig.completions, *down_ring, Direction::to_host).value()) {}
  Event there_and_back(const std::vector<std::byte>& from, std::vector<std::byte>& to) const {
    up->copy(rig.device->base(), from.data(), from.size());
    down->wait(up->signal());
    down->copy(to.data(), rig.device->base(), to.size());
    return down->signal();
  }

  GpuRig rig;
  std::unique_ptr<gpu::PinnedMemory> up_ring, down_ring;
  std::unique_ptr<gpu::StagedCopyQueue> up, down;
};

TEST_CASE("gpu copies: staged ones arrive, whatever the size of the ring") {
  for (const uint64_t ring : {4ull, 100ull, 4096ull, 65536ull}) {
    const StagedRig staged(ring);
    const uint64_t bytes = ring < 64 ? 100 : 10000;
    std::vector<std::byte> from(bytes), to(bytes);
    for (int round = 0; round < 3; ++round) {
      for (uint64_t i = 0; i < bytes; ++i) from[i] = pattern(i + static_cast<uint64_t>(round));
      REQUIRE(staged.there_and_back(from, to).wait().ok());
      REQUIRE(from == to);
    }
  }
  GpuRig rig;
  MemorySlice tiny(*rig.pinned, 0, 3);
  CHECK(gpu::StagedCopyQueue::create(*rig.completions, tiny, StagedRig::Direction::to_host).status().code() ==
        Code::invalid_argument);
}

TEST_CASE("gpu copies: staged ones wait, fail, and go on after a reset") {
  StagedRig staged(1024);
  std::vector<std::byte> from(5000, std::byte{1}), to(5000);
  staged.up->wait(Event(staged.rig.host, 1));
  const Event late = staged.there_and_back(from, to);
  sleep_ms(3);
  CHECK(!late.done());
  staged.rig.host.signal(1, Status(Code::io_error, "disk gone"));
  CHECK(late.wait().message() == "disk gone");
  CHECK(to[0] == std::byte{0});
  staged.up->reset();
  staged.down->reset();
  standin::fail(standin::Call::memcpy_async, 3, cudaErrorUnknown);
  CHECK(!staged.there_and_back(from, to).wait().ok());
  staged.up->reset();
  staged.down->reset();
  CHECK(staged.there_and_back(from, to).wait().ok());
  CHECK(from == to);
  standin::lose_device();
  CHECK(staged.there_and_back(from, to).wait().code() == Code::unavailable);
}

TEST_CASE("gpu copies: the destructor of a staged queue finishes what was enqueued") {
  std::vector<std::byte> from(5000, std::byte{7}), to(5000);
  {
    const StagedRig staged(1024);
    (void)staged.there_and_back(from, to);
  }
  CHECK(from == to);
}

}  // namespace
}  // namespace sluice::testing
