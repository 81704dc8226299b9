// The GPU as a Device: its queues, the form of activations it wants, scratch, and a small computation.
#include "gpu/gpu_device.h"

#include <chrono>
#include <cmath>
#include <thread>

#include "tests/gpu/gpu_rig.h"

namespace sluice::testing {
namespace {

TEST_CASE("gpu device: what it is and wants") {
  const StandIn standin;
  const auto memory = gpu::GpuMemory::create(0, 1 * MiB).value();
  gpu::GpuOptions options;
  options.memory_tier = TierId{3};
  options.scratch = memory.get();
  const auto device = gpu::GpuDevice::create(options).value();
  CHECK(device->name() == "gpu 0");
  CHECK(device->memory_tier() == TierId{3});
  CHECK(device->describe().find("4 SMs") != std::string::npos);
  CHECK(device->act_format(DType::q4_k, Compute::fast, true) == ActFormat::q8);
  CHECK(device->act_format(DType::q4_k, Compute::f32, true) == ActFormat::f32);
  CHECK(device->act_format(DType::f32, Compute::fast, false) == ActFormat::f32);
  CHECK(device->act_row_bytes(ActFormat::f32, 100) >= 400);
  CHECK(device->act_row_bytes(ActFormat::q8, 256) % 64 == 0);
  CHECK(device->lost().ok());
  CHECK(device->queue().signal().wait().ok());
  CHECK(device->to_device().signal().wait().ok());
  CHECK(device->to_host().signal().wait().ok());
}

TEST_CASE("gpu device: one that is not there") {
  const StandIn standin;
  gpu::GpuOptions options;
  options.device = 1;
  const auto device = gpu::GpuDevice::create(options);
  CHECK(!device.ok());
  CHECK(device.status().message().find("gpu 1") == 0);
}

// out = (silu(g) * u) normalized, which the CPU computes in double.
TEST_CASE("gpu device: kernels of several calls run in order, from pinned memory to pinned memory") {
  const StandIn standin;
  constexpr uint32_t cols = 96, rows = 3;
  const auto pinned = gpu::PinnedMemory::allocate(0, 64 * KiB).value();
  const auto memory = gpu::GpuMemory::create(0, 64 * KiB).value();
  const auto device = gpu::GpuDevice::create({}).value();
  auto* const host = reinterpret_cast<float*>(pinned->base());
  auto* const there = reinterpret_cast<float*>(memory->base());
  for (uint32_t i = 0; i < 2 * rows * cols; ++i) host[i] = static_cast<float>(i % 17) * 0.25f - 2;
  device->to_device().copy(memory->base(), pinned->base(), 2 * rows * cols * sizeof(float));
  device->queue().wait(device->to_device().signal());
  device->queue().launch(GatedActCall{there, there + rows * cols, Activation::silu, rows, cols, there});
  device->queue().launch(RmsNormCall{there, nullptr, 1e-6f, rows, cols, there, false});
  device->to_host().wait(device->queue().signal());
  float* const back = host + 2 * rows * cols;
  device->to_host().copy(reinterpret_cast<std::byte*>(back), memory->base(), rows * cols * sizeof(float));
  const Status ended = device->to_host().signal().wait();
  REQUIRE_MESSAGE(ended.ok(), ended.message());
  for (uint32_t r = 0; r < rows; ++r) {
    double value[cols], sum = 0;
    for (uint32_t c = 0; c < cols; ++c) {
      const double g = host[r * cols + c], u = host[rows * cols + r * cols + c];
      value[c] = g / (1 + std::exp(-g)) * u;
      sum += value[c] * value[c];
    }
    for (uint32_t c = 0; c < cols; ++c)
      CHECK(back[r * cols + c] == doctest::Approx(value[c] / std::sqrt(sum / cols + 1e-6)).epsilon(1e-4));
  }
  CHECK(device->compute().totals()[KernelCall(RmsNormCall{}).index()].calls == 1);
}

TEST_CASE("gpu device: a trace has a lane for the kernels and one for each direction") {
  standin::Options o;
  o.latency_us = 1000;
  const StandIn standin(o);
  Trace trace(16);
  const auto pinned = gpu::PinnedMemory::allocate(0, 64 * KiB).value();
  const auto memory = gpu::GpuMemory::create(0, 64 * KiB).value();
  const uint64_t before = now_ns();
  {
    gpu::GpuOptions options;
    options.trace = &trace;
    const auto device = gpu::GpuDevice::create(options).value();
    device->to_device().copy(memory->base(), pinned->base(), 4096);
    device->queue().wait(device->to_device().signal());
    device->queue().launch(SoftcapCall{reinterpret_cast<float*>(memory->base()), 4, 256, 30.0f});
    device->to_host().wait(device->queue().signal());
    (void)device->to_host().signal();  // without work: no span
    device->to_host().copy(pinned->base(), memory->base(), 4096);
    REQUIRE(device->to_host().signal().wait().ok());
  }
  const uint64_t after = now_ns();
  REQUIRE(trace.size() == 3);
  const char* const lanes[] = {"gpu 0 h2d", "gpu 0", "gpu 0 d2h"};
  for (const char* lane : lanes) {
    size_t found = 0;
    for (size_t i = 0; i < trace.size(); ++i) {
      if (std::string(trace[i].lane) != lane) continue;
      ++found;
      CHECK(trace[i].bytes >= 4096);
      CHECK(trace[i].start_ns >= before);
      CHECK(trace[i].end_ns <= after + 1'000'000'000);  // the clocks are only matched as well as the host can look
      CHECK(trace[i].end_ns - trace[i].start_ns >= 900'000);
    }
    CHECK(found == 1);
  }
}

TEST_CASE("gpu device: no span of a trace covers what the stream waited for") {
  static constexpr uint64_t pause = 60'000'000;
  for (const bool memory_operations : {true, false}) {
    CAPTURE(memory_operations);
    standin::Options o;
    o.memory_operations = memory_operations;
    const StandIn standin(o);
    Trace trace(16);
    const auto memory = gpu::GpuMemory::create(0, 64 * KiB).value();
    Timeline disk;
    {
      gpu::GpuOptions options;
      options.trace = &trace;
      const auto device = gpu::GpuDevice::create(options).value();
      const SoftcapCall call{reinterpret_cast<float*>(memory->base()), 4, 256, 30.0f};
      std::thread reader([&disk] {
        std::this_thread::sleep_for(std::chrono::nanoseconds(pause));
        disk.signal(1);
      });
      device->queue().launch(call);
      device->queue().wait(Event(disk, 1));
      device->queue().launch(call);
      CHECK(device->queue().signal().wait().ok());
      reader.join();
    }
    REQUIRE(trace.size() == 2);
    CHECK(trace.dropped() == 0);
    CHECK(trace[0].end_ns - trace[0].start_ns < pause / 2);
    CHECK(trace[1].end_ns - trace[1].start_ns < pause / 2);
    CHECK(trace[1].start_ns - trace[0].end_ns > pause / 2);
    CHECK(trace[0].bytes == trace[1].bytes);
  }
}

TEST_CASE("gpu device: each call that fails while it is made leaves nothing behind") {
  for (int i = 0; i < standin::n_calls; ++i) {
    const auto call = static_cast<standin::Call>(i);
    const uint64_t n = [&] {
      const StandIn standin;
      CHECK(gpu::GpuDevice::create({}).ok());
      return standin::calls(call);
    }();
    for (uint64_t nth = 1; nth <= n; ++nth) {
      const StandIn standin;
      standin::fail(call, nth, cudaErrorMemoryAllocation);
      (void)gpu::GpuDevice::create({});  // the stand-in's baseline is the check
    }
  }
}

}  // namespace
}  // namespace sluice::testing
