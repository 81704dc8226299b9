// What probe() says of each machine; one line each, and no two reasons alike.
#include "gpu/probe.h"

#include "tests/gpu/gpu_rig.h"

namespace sluice::testing {
namespace {

gpu::Probe probe_of(const standin::Options& options) {
  const StandIn standin(options);
  gpu::Probe probe = gpu::probe();
  CHECK(probe.built);
  CHECK(probe.available == !probe.devices.empty());
  CHECK(probe.available == probe.reason.empty());
  CHECK(probe.reason.find('\n') == std::string::npos);
  return probe;
}

TEST_CASE("gpu probe: devices with what matters of them") {
  standin::Options o;
  o.devices = 2;
  o.device_bytes = 3 * GiB;
  o.multiprocessors = 7;
  const gpu::Probe probe = probe_of(o);
  REQUIRE(probe.devices.size() == 2);
  CHECK(probe.devices[1].index == 1);
  CHECK(probe.devices[0].memory_bytes == 3 * GiB);
  CHECK(probe.devices[0].n_sms == 7);
  CHECK(probe.devices[0].major == 8);
  CHECK(probe.devices[0].minor == 9);
  CHECK(!probe.devices[0].name.empty());
  CHECK(probe.devices[0].describe().find("compute capability 8.9") != std::string::npos);
  CHECK(probe.devices[0].describe().find(probe.devices[0].pci_bus_id) != std::string::npos);
}

TEST_CASE("gpu probe: no driver, an old driver, no device and an old device are told apart") {
  standin::Options no_driver, old_driver, no_device, old_device;
  no_driver.driver_version = 0;
  old_driver.driver_version = 12040;
  no_device.devices = 0;
  old_device.compute_major = 7;
  old_device.compute_minor = 5;
  CHECK(probe_of(no_driver).reason == "no NVIDIA driver is installed");
  CHECK(probe_of(old_driver).reason.find("too old: it knows CUDA 12.4, this build needs 13.0") != std::string::npos);
  CHECK(probe_of(no_device).reason.find("no NVIDIA GPU is visible") != std::string::npos);
  CHECK(probe_of(old_device).reason.find("compute capability 7.5; this build needs 8.0") != std::string::npos);
}

TEST_CASE("gpu probe: a driver that fails is told in one line, and leaves no error behind") {
  for (const standin::Call call : {standin::Call::get_device_count, standin::Call::get_device_properties}) {
    const StandIn standin;
    standin::fail(call, 1, cudaErrorUnknown);
    const gpu::Probe probe = gpu::probe();
    CHECK(!probe.available);
    CHECK(probe.reason.find("cudaErrorUnknown") != std::string::npos);
    CHECK(cudaPeekAtLastError() == cudaSuccess);
    CHECK(gpu::probe().available);
  }
}

TEST_CASE("gpu probe: one device of two that does not answer is passed over") {
  standin::Options o;
  o.devices = 2;
  const StandIn standin(o);
  standin::fail(standin::Call::get_device_properties, 1, cudaErrorECCUncorrectable);
  const gpu::Probe probe = gpu::probe();
  REQUIRE(probe.devices.size() == 1);
  CHECK(probe.devices[0].index == 1);
  CHECK(probe.available);
}

}  // namespace
}  // namespace sluice::testing
