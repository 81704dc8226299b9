// What can go wrong with a GPU: each call refused at its Nth time, kernels and copies that fault, a device
// that is lost. Everything that waits goes on, with a Status that says why, and all is given back.
#include "tests/gpu/gpu_rig.h"

namespace sluice::testing {
namespace {

// CUDA is asked soon when nothing moves.
GpuRigOptions quick(bool memory_operations = true) {
  GpuRigOptions o = rig_options(memory_operations);
  o.completions.check_ns = 100'000;
  return o;
}

// Three turns of a matrix, the second behind the value `go` of the host. The Events of each, in order.
std::vector<Event> run_turns(GpuRig& rig, uint64_t go) {
  std::vector<Event> ended;
  for (uint64_t i = 0; i < 3; ++i) {
    if (i == 1) rig.up->wait(Event(rig.host, go));
    rig.send(0);
    rig.compute->wait(rig.up->signal());
    rig.turn(0, 1);
    rig.down->wait(rig.compute->signal());
    rig.receive(1);
    ended.push_back(rig.down->signal());
    rig.up->wait(ended.back());
  }
  return ended;
}

// Of a rig that was started: all Events come, and what is ok is right. The first failure.
Status run_and_check(GpuRig& rig, uint64_t host_delay_us) {
  const uint64_t go = rig.host.value() + 1;
  rig.fill(4);
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::microseconds(host_delay_us));
    rig.host.signal(go);
  });
  Status first;
  for (const Event& event : run_turns(rig, go)) {
    const Status ended = event.wait();
    if (first.ok()) first = ended;
    else CHECK(!ended.ok());
  }
  later.join();
  if (first.ok()) CHECK(rig.came_back(4, true));
  return first;
}

void reset_all(GpuRig& rig) {
  for (gpu::GpuCopyQueue* queue : {rig.up.get(), rig.down.get()}) {
    (void)queue->signal().wait();
    queue->reset();
  }
  (void)rig.compute->signal().wait();
  rig.compute->reset();
}

void each_call_fails(standin::Call call, uint64_t times, const GpuRigOptions& o, uint64_t host_delay_us) {
  for (uint64_t nth = 1; nth <= times; ++nth) {
    GpuRig rig(o, GpuRig::Unstarted{});
    standin::fail(call, nth, cudaErrorUnknown);
    const Status started = rig.start(o);
    if (!started.ok()) {
      CHECK(!started.message().empty());
      continue;
    }
    const Status first = run_and_check(rig, host_delay_us);
    if (!first.ok()) CHECK_MESSAGE(first.message().find("nknown") != std::string::npos, first.message());
    standin::fail(call, UINT32_MAX, cudaSuccess);  // no more, if it was not called that often
    reset_all(rig);
    const Status again = run_and_check(rig, 0);
    const bool lasting = call == standin::Call::run_kernel || call == standin::Call::run_copy;
    if (!lasting) CHECK_MESSAGE(again.ok(), again.message());
  }
}

uint64_t calls_of(standin::Call call, const GpuRigOptions& o) {
  GpuRig rig(o);
  CHECK(run_and_check(rig, 500).ok());
  return standin::calls(call);
}

void every_call_fails(const GpuRigOptions& o) {
  for (int i = 0; i < standin::n_calls; ++i) {
    const auto call = static_cast<standin::Call>(i);
    // Made when nothing moves, so that their number is a matter of time.
    const bool by_time = call == standin::Call::stream_query || call == standin::Call::event_query;
    each_call_fails(call, by_time ? 3 : calls_of(call, o), o, by_time ? 2000 : 100);
  }
}

TEST_CASE("gpu trouble: each call that fails, at each of its times") { every_call_fails(quick(true)); }
TEST_CASE("gpu trouble: likewise without stream memory operations") { every_call_fails(quick(false)); }

TEST_CASE("gpu trouble: a lost device fails what is under way and what comes, and nothing hangs") {
  for (const bool memory_operations : {true, false}) {
    GpuRigOptions o = quick(memory_operations);
    o.standin.latency_us = 2000;
    GpuRig rig(o);
    rig.host.signal(1);
    rig.fill(1);
    const std::vector<Event> ended = run_turns(rig, 1);
    const Event idle = rig.compute->signal();
    standin::lose_device();
    CHECK(ended.back().wait().code() == Code::unavailable);
    CHECK(!idle.wait().ok());
    CHECK(rig.completions->is_lost());
    CHECK(rig.completions->lost().message().find("has stopped working") != std::string::npos);
    CHECK(rig.completions->lost().message().find("is lost") != std::string::npos);
    reset_all(rig);
    rig.turn(0, 1);
    CHECK(rig.compute->signal().wait().code() == Code::unavailable);  // a reset brings no device back
  }
}

TEST_CASE("gpu trouble: a device is lost while it waits for the host, who then comes") {
  GpuRig rig(quick());
  rig.up->wait(Event(rig.host, 1));
  rig.send(0);
  const Event sent = rig.up->signal();
  rig.compute->wait(sent);
  const Event behind = rig.compute->signal();
  standin::lose_device();
  sleep_ms(2);
  rig.host.signal(1);
  CHECK(sent.wait().code() == Code::unavailable);
  CHECK(behind.wait().code() == Code::unavailable);
}

TEST_CASE("gpu trouble: a kernel or a copy that faults takes the device with it") {
  for (const standin::Call call : {standin::Call::run_kernel, standin::Call::run_copy}) {
    GpuRig rig(quick());
    standin::fail(call, 1, cudaErrorIllegalAddress);
    const Status first = run_and_check(rig, 0);
    CHECK(first.code() == Code::unavailable);
    CHECK(first.message().find("cudaErrorIllegalAddress") != std::string::npos);
    CHECK(!rig.compute->signal().wait().ok());
  }
}

TEST_CASE("gpu trouble: a copy or a kernel that is refused is named") {
  GpuRig rig(quick());
  standin::fail(standin::Call::memcpy_async, 1, cudaErrorInvalidValue);
  rig.up->copy(rig.device->base(), rig.pinned->base(), 4096);
  CHECK(rig.up->signal().wait().message().find("a copy of 4.0 KiB") != std::string::npos);
  standin::fail(standin::Call::launch, 1, cudaErrorInvalidConfiguration);
  rig.turn(0, 1);
  CHECK(rig.compute->signal().wait().message().find("copy_rows") != std::string::npos);
  CHECK(rig.launched() == 0);
}

}  // namespace
}  // namespace sluice::testing
