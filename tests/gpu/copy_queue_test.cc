// Copies: sizes, directions, what is made as one, and both directions at a time.
#include "core/trace.h"
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
  Timeline host;
  host.signal(1, Status(Code::cancelled, "enough"));
  rig.up->wait(Event(host, 1));
  rig.send(0);
  CHECK(rig.up->signal().wait().code() == Code::cancelled);
  CHECK(rig.up->copies() == 0);
  rig.up->reset();
  rig.send(0);
  CHECK(rig.up->signal().wait().ok());
  CHECK(rig.up->copies() == 1);
}

}  // namespace
}  // namespace sluice::testing
