// Arenas of a GPU, pinned memory, and what happens where there is none.
#include "gpu/gpu_memory.h"

#include "cpu/host_memory.h"
#include "tests/gpu/gpu_rig.h"

namespace sluice::testing {
namespace {

using gpu::GpuMemory;
using gpu::PinnedMemory;

TEST_CASE("gpu memory: an arena is there, aligned, and counted in whole granules") {
  const StandIn standin;
  const uint64_t free = gpu::vram(0).value().free;
  {
    const auto memory = GpuMemory::create(0, 5 * MiB);
    REQUIRE(memory.ok());
    CHECK((*memory)->capacity() == 5 * MiB);
    CHECK(!(*memory)->host_accessible());
    CHECK(reinterpret_cast<uintptr_t>((*memory)->base()) % 4096 == 0);
    CHECK(GpuMemory::cost(5 * MiB) == 6 * MiB);
    CHECK(GpuMemory::cost(1) == 2 * MiB);
    CHECK(gpu::vram(0).value().free + GpuMemory::cost(5 * MiB) == free);
  }
  CHECK(gpu::vram(0).value().free == free);
}

TEST_CASE("gpu memory: what does not fit, because another process has it, is an error with the numbers") {
  standin::Options o;
  o.device_bytes = 64 * MiB;
  const StandIn standin(o);
  CHECK(GpuMemory::create(0, 0).status().code() == Code::invalid_argument);
  CHECK(GpuMemory::create(0, UINT64_MAX).status().code() == Code::invalid_argument);
  CHECK(GpuMemory::create(0, 65 * MiB).status().code() == Code::over_budget);
  standin::take_memory(40 * MiB);
  const Status status = GpuMemory::create(0, 32 * MiB).status();
  CHECK(status.code() == Code::over_budget);
  CHECK(status.message().find("32.0 MiB") != std::string::npos);
  CHECK(status.message().find("24.0 MiB are free") != std::string::npos);
  CHECK(status.message().find("--vram") != std::string::npos);
  CHECK(GpuMemory::create(0, 16 * MiB).ok());
  standin::take_memory(0);
  CHECK(GpuMemory::create(0, 32 * MiB).ok());
  CHECK(cudaPeekAtLastError() == cudaSuccess);
}

TEST_CASE("gpu memory: a device that is not there") {
  const StandIn standin;
  CHECK(!GpuMemory::create(1, 1 * MiB).ok());
  CHECK(!gpu::vram(1).ok());
  CHECK(!PinnedMemory::allocate(1, 1 * MiB).ok());
}

TEST_CASE("gpu memory: host memory is pinned where it lies, once") {
  const StandIn standin;
  auto host = cpu::HostMemory::create(4 * MiB, true).value();
  {
    const auto pinned = PinnedMemory::pin(0, *host);
    REQUIRE(pinned.ok());
    CHECK((*pinned)->base() == host->base());
    CHECK((*pinned)->capacity() == host->capacity());
    CHECK((*pinned)->host_accessible());
    CHECK((*pinned)->registered());
    CHECK(standin::live().registered_bytes == 4 * MiB);
    const Status twice = PinnedMemory::pin(0, *host).status();
    CHECK(twice.code() == Code::unavailable);
    CHECK(twice.message().find("AlreadyRegistered") != std::string::npos);
  }
  CHECK(standin::live().registered_bytes == 0);
  CHECK(PinnedMemory::pin(0, *host).ok());
}

TEST_CASE("gpu memory: pinned memory of its own is aligned as host memory is") {
  const StandIn standin;
  const auto ring = PinnedMemory::allocate(0, 100000);
  REQUIRE(ring.ok());
  CHECK(reinterpret_cast<uintptr_t>((*ring)->base()) % (2 * MiB) == 0);
  CHECK((*ring)->capacity() == 100000);
  std::memset((*ring)->base(), 1, 100000);
}

TEST_CASE("gpu memory: where pinning is refused a ring takes its place, with one warning") {
  standin::Options o;
  o.host_register_bytes = 8 * MiB;
  const StandIn standin(o);
  auto host = cpu::HostMemory::create(16 * MiB, true).value();
  {
    const auto staging = gpu::pin_or_ring(0, *host, 4 * MiB);
    REQUIRE(staging.ok());
    CHECK(!staging->memory->registered());
    CHECK(staging->memory->capacity() == 4 * MiB);
    CHECK(staging->warning.find("refuses to pin 16.0 MiB") != std::string::npos);
    CHECK(staging->warning.find("4.0 MiB") != std::string::npos);
    CHECK(staging->warning.find('\n') == std::string::npos);
  }
  CHECK(gpu::pin_or_ring(0, *host, 32 * MiB).status().code() == Code::over_budget);
  auto small = cpu::HostMemory::create(2 * MiB, true).value();
  const auto whole = gpu::pin_or_ring(0, *small, 1 * MiB);
  REQUIRE(whole.ok());
  CHECK(whole->memory->registered());
  CHECK(whole->warning.empty());
}

TEST_CASE("gpu memory: a system whose pinned memory has another address on the device") {
  standin::Options o;
  o.host_pointers = false;
  const StandIn standin(o);
  auto host = cpu::HostMemory::create(2 * MiB, true).value();
  CHECK(PinnedMemory::pin(0, *host).status().code() == Code::unavailable);
}

TEST_CASE("gpu memory: each call that fails is an error, and nothing stays behind") {
  const auto all = []() -> Status {
    auto host = cpu::HostMemory::create(2 * MiB, true).value();
    SLUICE_ASSIGN_OR_RETURN(const auto device, GpuMemory::create(0, 1 * MiB));
    SLUICE_ASSIGN_OR_RETURN(const auto pinned, PinnedMemory::pin(0, *host));
    SLUICE_ASSIGN_OR_RETURN(const auto ring, PinnedMemory::allocate(0, 1 * MiB));
    return gpu::vram(0).status();
  };
  for (int i = 0; i < standin::n_calls; ++i) {
    const auto call = static_cast<standin::Call>(i);
    const uint64_t n = [&] {
      const StandIn standin;
      CHECK(all().ok());
      return standin::calls(call);
    }();
    for (uint64_t nth = 1; nth <= n; ++nth) {
      const StandIn standin;
      standin::fail(call, nth, cudaErrorUnknown);
      const Status status = all();
      const bool gives_back =
          call == standin::Call::free || call == standin::Call::host_unregister || call == standin::Call::free_host;
      CHECK_MESSAGE(status.ok() == gives_back, "call ", i, " the ", nth, "th time");
      CHECK(cudaPeekAtLastError() == cudaSuccess);
    }
  }
}

}  // namespace
}  // namespace sluice::testing
