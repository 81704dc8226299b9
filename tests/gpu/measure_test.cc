// What measure() says of a GPU, on small sizes: all of it positive, and every failure told and cleaned up behind.
#include "gpu/measure.h"

#include "cpu/host_memory.h"
#include "tests/gpu/gpu_rig.h"

namespace sluice::testing {
namespace {

gpu::MeasureOptions small() {
  gpu::MeasureOptions o;
  o.rows = 16;
  o.cols = 256;
  o.tokens = 18;
  o.more_tokens = 40;
  o.tokens_f32 = 2;
  o.memory_bytes = o.copy_bytes = 64 * KiB;
  o.repeats = 1;
  return o;
}

standin::Options with_latency() {
  standin::Options o;
  o.latency_us = 20;  // nothing takes no time
  return o;
}

TEST_CASE("gpu measure: rates of every type, of the memory and of the link") {
  const StandIn standin(with_latency());
  const auto rates = gpu::measure(0, small());
  REQUIRE_MESSAGE(rates.ok(), rates.status().message());
  CHECK(rates->device.id == "gpu 0");
  CHECK(rates->memory.id == "gpu 0");
  CHECK(rates->to_device.from == "host");
  CHECK(rates->to_device.to == "gpu 0");
  CHECK(rates->to_host.from == "gpu 0");
  CHECK(rates->to_host.to == "host");
  CHECK(rates->memory.capacity == standin::Options{}.device_bytes);
  for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,
                           DType::q8_0, DType::q4_k, DType::q6_k}) {
    CAPTURE(info(type).name);
    CHECK(rates->device.matvec_gb_s.at(type) > 0);
    CHECK(rates->device.matmul_gflops.at(type) > 0);
    CHECK(rates->device.matvec_f32_gb_s.at(type) > 0);
    CHECK(rates->device.matmul_f32_gflops.at(type) > 0);
  }
  CHECK(rates->device.memory_gb_s == rates->memory.read_gb_s);
  CHECK(rates->memory.read_gb_s > 0);
  CHECK(rates->memory.write_gb_s > 0);
  CHECK(rates->device.call_us > 0);
  CHECK(rates->device.recorded_us > 0);
  CHECK(rates->to_host.gb_s > 0);
  CHECK(rates->to_device.latency_us >= 20);
}

TEST_CASE("gpu link_rate: the link's, from all of the host's memory; what cannot be is told") {
  standin::Options o;
  o.h2d_gb_s = 4;
  const StandIn standin(o);
  const auto memory = cpu::HostMemory::create(3 * MiB);
  REQUIRE(memory.ok());
  cpu::HostMemory& host = **memory;
  const auto rate = gpu::link_rate(0, host, 0.01);
  REQUIRE_MESSAGE(rate.ok(), rate.status().message());
  CHECK(*rate > 0.1);
  CHECK(*rate < 4.4);
  CHECK(gpu::link_rate(0, host, 0).status().code() == Code::invalid_argument);
  CHECK(!gpu::link_rate(7, host, 0.01).ok());
}

TEST_CASE("gpu measure: a link is not found to be faster than it is") {
  standin::Options o;
  o.h2d_gb_s = 4;
  o.d2h_gb_s = 2;
  const StandIn standin(o);
  gpu::MeasureOptions options = small();
  options.memory_bytes = options.copy_bytes = 4 * MiB;
  const auto rates = gpu::measure(0, options);
  REQUIRE(rates.ok());
  CHECK(rates->to_device.gb_s < 4.4);
  CHECK(rates->to_host.gb_s < 2.2);
  CHECK(rates->to_device.gb_s > 0);
  CHECK(rates->to_host.gb_s > 0);
}

TEST_CASE("gpu measure: every failure is a status that names the device, and nothing is left behind") {
  for (const standin::Call call :
       {standin::Call::set_device, standin::Call::get_device_properties, standin::Call::malloc,
        standin::Call::stream_create, standin::Call::event_create, standin::Call::memcpy_async,
        standin::Call::begin_capture, standin::Call::launch, standin::Call::graph_instantiate,
        standin::Call::graph_launch, standin::Call::event_elapsed_time, standin::Call::stream_synchronize})
    for (const uint64_t nth : {1u, 2u}) {
      const StandIn standin;
      standin::fail(call, nth, cudaErrorUnknown);
      const auto rates = gpu::measure(0, small());
      const bool reached = standin::calls(call) >= nth;
      CAPTURE(static_cast<int>(call));
      CHECK(rates.ok() != reached);
      if (reached) CHECK(rates.status().message().find("gpu 0") != std::string::npos);
    }
}

TEST_CASE("gpu measure: a device that is full, and sizes that make no sense") {
  const StandIn standin;
  standin::take_memory(standin::Options{}.device_bytes - 64 * KiB);
  CHECK(gpu::measure(0, small()).status().code() == Code::over_budget);
  standin::take_memory(0);
  gpu::MeasureOptions odd = small();
  odd.cols = 100;
  CHECK(gpu::measure(0, odd).status().code() == Code::invalid_argument);
}

}  // namespace
}  // namespace sluice::testing
