#include <doctest/doctest.h>

#include "core/bytes.h"
#include "cpu/cpu_device.h"
#include "cpu/host_memory.h"
#include "tests/cpu/kernel_inputs.h"

using namespace sluice;
using namespace sluice::cpu;
using namespace sluice::cpu::test;

TEST_CASE("cpu device: activations are q8 for quantized weights under fast, floats otherwise") {
  auto device = CpuDevice::create({1, best_isa(), nullptr, false});
  REQUIRE_MESSAGE(device.ok(), device.status().message());
  for (const DType type : {DType::f32, DType::f16, DType::bf16})
    for (const Compute compute : {Compute::fast, Compute::f32})
      CHECK((*device)->act_format(type, compute, false) == ActFormat::f32);
  for (const DType type : {DType::q4_0, DType::q4_1, DType::q8_0, DType::q4_k, DType::q6_k}) {
    CHECK((*device)->act_format(type, Compute::fast, false) == ActFormat::q8);
    CHECK((*device)->act_format(type, Compute::f32, true) == ActFormat::f32);
  }
  CHECK((*device)->act_row_bytes(ActFormat::f32, 576) == 2304);
  CHECK((*device)->act_row_bytes(ActFormat::f32, 33) == 192);
  // 576 values, then two arrays of 18 floats padded to 128 bytes.
  CHECK((*device)->act_row_bytes(ActFormat::q8, 576) == 576 + 3 * 128);
  CHECK((*device)->memory_tier() == host_tier);
  CHECK((*device)->name() == "cpu");
}

TEST_CASE("cpu device: runs a call on every ISA and number of threads") {
  Random random(40);
  const std::vector<float> gate = random.normals(40'000), up = random.normals(40'000);
  std::vector<float> first;
  for (const Isa isa : supported_isas())
    for (uint32_t n = 1; n <= 4; ++n) {
      auto device = CpuDevice::create({n, isa, nullptr, true});
      REQUIRE_MESSAGE(device.ok(), device.status().message());
      CHECK((*device)->n_threads() == n);
      std::vector<float> out(gate.size());
      Queue& queue = (*device)->queue();
      queue.launch(GatedActCall{gate.data(), up.data(), Activation::silu, 4, 10'000, out.data()});
      REQUIRE(queue.signal().wait().ok());
      if (first.empty()) first = out;
      CHECK(same_bits(out, first));
      CHECK((*device)->totals()[KernelCall(GatedActCall{}).index()].calls == 1);
    }
}

TEST_CASE("cpu device: by default one thread for each core that may be used") {
  auto device = CpuDevice::create();
  REQUIRE(device.ok());
  CHECK((*device)->n_threads() >= 1);
  CHECK((*device)->describe().find(kernels(best_isa()).isa) != std::string::npos);
}

TEST_CASE("cpu device: absurd thread counts are refused") {
  CHECK(CpuDevice::create({100'000, best_isa(), nullptr, false}).status().code() == Code::invalid_argument);
}

TEST_CASE("host memory: aligned to 2 MiB, zeroed, writable to its last byte") {
  for (const uint64_t bytes : {uint64_t{1}, uint64_t{4096}, 3 * MiB + 5}) {
    auto memory = HostMemory::create(bytes);
    REQUIRE_MESSAGE(memory.ok(), memory.status().message());
    HostMemory& m = **memory;
    CHECK(reinterpret_cast<uintptr_t>(m.base()) % (2 * MiB) == 0);
    CHECK(m.capacity() == align_up(bytes, 4096));
    CHECK(m.host_accessible());
    CHECK(m.base()[0] == std::byte{0});
    m.base()[m.capacity() - 1] = std::byte{7};
    CHECK(m.base()[m.capacity() - 1] == std::byte{7});
  }
}

namespace {

// Resident bytes of this process.
uint64_t resident_bytes() {
  unsigned long pages = 0, resident = 0;
  std::FILE* f = std::fopen("/proc/self/statm", "r");
  REQUIRE(f != nullptr);
  REQUIRE(std::fscanf(f, "%lu %lu", &pages, &resident) == 2);
  std::fclose(f);
  return uint64_t{resident} * 4096;
}

}  // namespace

TEST_CASE("host memory: committed on first touch, or at once with prefault, and given back") {
  const uint64_t before = resident_bytes();
  auto lazy = HostMemory::create(64 * MiB);
  REQUIRE(lazy.ok());
  CHECK(resident_bytes() < before + 16 * MiB);
  auto eager = HostMemory::create(64 * MiB, true);
  REQUIRE(eager.ok());
  CHECK(resident_bytes() > before + 60 * MiB);
  std::move(eager).value().reset();
  CHECK(resident_bytes() < before + 16 * MiB);
}

TEST_CASE("host memory: what the system cannot give is an error with a size in it") {
  CHECK(HostMemory::create(0).status().code() == Code::invalid_argument);
  for (const uint64_t bytes : {UINT64_MAX, UINT64_MAX - 5000, uint64_t{1} << 62, uint64_t{1} << 50}) {
    const Status status = HostMemory::create(bytes).status();
    CHECK(status.code() == Code::over_budget);
    CHECK(status.message().find("iB") != std::string::npos);
  }
}
