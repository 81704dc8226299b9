// Queues of a GPU: order, waits on everything there is to wait on, failures, and that nothing ever hangs.
#include "tests/gpu/gpu_rig.h"

namespace sluice::testing {
namespace {

constexpr bool both[] = {true, false};

Status status(Code code, const char* text) { return Status(code, text); }

// There, turned, and back again; the Event of the way back.
Event round_trip(GpuRig& rig) {
  rig.send(0);
  rig.compute->wait(rig.up->signal());
  rig.turn(0, 1);
  rig.down->wait(rig.compute->signal());
  rig.receive(1);
  return rig.down->signal();
}

TEST_CASE("gpu queue: a chain over three queues arrives in order") {
  for (const bool memory_operations : both) {
    GpuRig rig(rig_options(memory_operations));
    CHECK(rig.completions->stream_memory_operations() == memory_operations);
    for (int i = 0; i < 100; ++i) {
      rig.fill(static_cast<float>(i));
      const Status ended = round_trip(rig).wait();
      REQUIRE_MESSAGE(ended.ok(), ended.message());
      REQUIRE(rig.came_back(static_cast<float>(i), true));
      rig.up->wait(Event());
    }
    CHECK(rig.launched() == 100);
    CHECK(rig.up->copies() == 100);
    CHECK(rig.up->bytes_copied() == 100 * GpuRig::matrix_bytes);
  }
}

TEST_CASE("gpu queue: Events come in order, and a signal of an empty queue comes too") {
  GpuRig rig;
  CHECK(rig.compute->signal().wait().ok());
  const Event a = rig.compute->signal(), b = rig.compute->signal();
  CHECK(b.wait().ok());
  CHECK(a.done());
  CHECK(a.timeline() == b.timeline());
  CHECK(a.value() < b.value());
}

TEST_CASE("gpu queue: Events that come aside come in their order with others, and behind their work") {
  for (const bool memory_operations : both) {
    GpuRig rig(rig_options(memory_operations));
    std::vector<Event> events;
    for (int i = 0; i < 300; ++i) {
      rig.fill(static_cast<float>(i));
      rig.send(0);
      rig.compute->wait(rig.up->signal());
      rig.turn(0, 1);
      const bool aside = i % 3 != 0;
      events.push_back(aside ? rig.compute->signal_aside() : rig.compute->signal());
      rig.down->wait(events.back());
      rig.receive(1);
      REQUIRE(rig.down->signal().wait().ok());
      REQUIRE(rig.came_back(static_cast<float>(i), true));
      if (i % 7 == 0) REQUIRE(events.back().wait().ok());
    }
    for (size_t i = 1; i < events.size(); ++i) CHECK(events[i - 1].value() < events[i].value());
    CHECK(events.back().wait().ok());
    for (const Event& event : events) CHECK(event.done());
  }
}

TEST_CASE("gpu queue: an Event that comes aside tells of failures, and a failed queue gives some too") {
  GpuRig rig;
  rig.compute->wait(Event(rig.host, 1));
  rig.turn(0, 1);
  const Event aside = rig.compute->signal_aside();
  sleep_ms(5);
  CHECK(!aside.done());
  rig.host.signal(1, status(Code::io_error, "disk gone"));
  CHECK(aside.wait().message() == "disk gone");
  CHECK(rig.compute->signal_aside().wait().message() == "disk gone");
  rig.compute->reset();
  CHECK(rig.compute->signal_aside().wait().ok());
}

TEST_CASE("gpu queue: work waits for an Event of the host") {
  GpuRig rig;
  rig.fill(1);
  rig.up->wait(Event(rig.host, 1));
  rig.compute->wait(Event(rig.host, 2));
  const Event sent = [&] {
    rig.send(0);
    return rig.up->signal();
  }();
  rig.compute->wait(sent);
  rig.turn(0, 1);
  const Event turned = rig.compute->signal();
  sleep_ms(10);
  CHECK(!sent.done());
  rig.fill(7);  // what is there when the wait ends counts
  rig.host.signal(1);
  CHECK(sent.wait().ok());
  sleep_ms(10);
  CHECK(!turned.done());
  rig.host.signal(2);
  CHECK(turned.wait().ok());
  rig.down->wait(turned);
  rig.receive(1);
  CHECK(rig.down->signal().wait().ok());
  CHECK(rig.came_back(7, true));
}

TEST_CASE("gpu queue: the host and the device take turns") {
  GpuRig rig;
  std::vector<Event> sent;
  for (uint64_t i = 1; i <= 200; ++i) {
    rig.up->wait(Event(rig.host, i));
    rig.send(0);
    rig.down->wait(rig.up->signal());
    rig.receive(0);
    sent.push_back(rig.down->signal());
    rig.up->wait(sent.back());
  }
  for (uint64_t i = 1; i <= 200; ++i) {
    rig.fill(static_cast<float>(i));
    rig.host.signal(i);
    REQUIRE(sent[i - 1].wait().ok());
    REQUIRE(rig.came_back(static_cast<float>(i), false));
  }
}

TEST_CASE("gpu queue: an Event that has failed already fails the queue at once") {
  for (const bool memory_operations : both) {
    GpuRig rig(rig_options(memory_operations));
    rig.host.signal(1, status(Code::io_error, "disk gone"));
    rig.compute->wait(Event(rig.host, 1));
    rig.turn(0, 1);
    const Status first = rig.compute->signal().wait();
    CHECK(first.code() == Code::io_error);
    CHECK(first.message() == "disk gone");
    CHECK(rig.launched() == 0);
    CHECK(rig.compute->signal().wait().message() == "disk gone");
    rig.compute->reset();
    rig.fill(1);
    CHECK(round_trip(rig).wait().ok());
    CHECK(rig.came_back(1, true));
  }
}

TEST_CASE("gpu queue: an Event that fails later fails what is behind it, and the first failure stays") {
  Timeline other;
  GpuRig rig;
  const Event before = rig.compute->signal();
  rig.compute->wait(Event(rig.host, 1));
  const Event behind = rig.compute->signal();
  rig.compute->wait(Event(other, 1));
  const Event last = rig.compute->signal();
  CHECK(before.wait().ok());  // whatever comes of what is behind it
  other.signal(1, status(Code::corrupt, "second"));
  sleep_ms(3);
  CHECK(!last.done());
  rig.host.signal(1, status(Code::io_error, "first"));
  CHECK(behind.wait().message() == "first");
  CHECK(last.wait().message() == "first");
  rig.turn(0, 1);
  CHECK(rig.launched() == 0);
  rig.compute->reset();
  CHECK(rig.compute->signal().wait().ok());
}

TEST_CASE("gpu queue: a failure travels from queue to queue") {
  for (const bool memory_operations : both) {
    GpuRig rig(rig_options(memory_operations));
    rig.host.signal(1, status(Code::io_error, "disk gone"));
    rig.up->wait(Event(rig.host, 1));
    rig.send(0);
    rig.compute->wait(rig.up->signal());
    rig.turn(0, 1);
    rig.down->wait(rig.compute->signal());
    CHECK(rig.down->signal().wait().message() == "disk gone");
    rig.down->reset();
    rig.compute->reset();
    rig.up->reset();
    rig.fill(3);
    CHECK(round_trip(rig).wait().ok());
    CHECK(rig.came_back(3, true));
  }
}

TEST_CASE("gpu queue: waiting for its own Event and for one long ago") {
  Timeline later;
  GpuRig rig;
  rig.up->wait(Event(rig.host, 1));
  const Event first = rig.up->signal();
  rig.up->wait(first);
  rig.up->wait(Event(later, 1));
  for (uint32_t i = 0; i < 3 * gpu::Track::n_events; ++i) (void)rig.up->signal();
  const Event last = rig.up->signal();
  rig.compute->wait(first);  // not for `last`, though their CUDA events share a place
  const Event behind = rig.compute->signal();
  sleep_ms(3);
  CHECK(!behind.done());
  rig.host.signal(1);
  CHECK(behind.wait().ok());
  CHECK(!last.done());
  later.signal(1);
  CHECK(last.wait().ok());
}

TEST_CASE("gpu queue: more commands than the ring has room for") {
  for (const bool memory_operations : both) {
    GpuRig rig(rig_options(memory_operations));
    Event last;
    for (uint32_t i = 0; i < 3 * gpu::Track::ring_entries; ++i) {
      last = rig.compute->signal();
      rig.up->wait(last);
      if (i % 3 == 0) rig.compute->wait(rig.up->signal());
    }
    CHECK(last.wait().ok());
    CHECK(rig.up->signal().wait().ok());
  }
}

TEST_CASE("gpu queue: the destructor finishes what was enqueued") {
  GpuRig rig;
  rig.fill(5);
  rig.up->wait(Event(rig.host, 1));
  rig.send(0);
  std::thread later([&] {
    sleep_ms(5);
    rig.host.signal(1);
  });
  rig.up.reset();
  later.join();
  rig.receive(0);
  CHECK(rig.down->signal().wait().ok());
  CHECK(rig.came_back(5, false));
}

TEST_CASE("gpu queue: an Event of another device goes through the host") {
  GpuRigOptions o;
  o.standin.devices = 2;
  GpuRig rig(o);
  gpu::Completions::Options second;
  second.device = 1;
  const auto completions = gpu::Completions::create(second).value();
  const auto other = gpu::GpuCopyQueue::create(*completions).value();
  rig.fill(9);
  other->wait(Event(rig.host, 1));
  rig.up->wait(other->signal());
  rig.send(0);
  const Event sent = rig.up->signal();
  sleep_ms(3);
  CHECK(!sent.done());
  rig.host.signal(1);
  CHECK(sent.wait().ok());
}

TEST_CASE("gpu queue: streams are bounded, and can be made again") {
  GpuRig rig;
  std::vector<std::unique_ptr<gpu::GpuCopyQueue>> queues;
  for (uint32_t i = 3; i < gpu::Completions::max_streams; ++i)
    queues.push_back(gpu::GpuCopyQueue::create(*rig.completions).value());
  CHECK(gpu::GpuCopyQueue::create(*rig.completions).status().code() == Code::unavailable);
  CHECK(queues.back()->signal().wait().ok());
  queues.pop_back();
  queues.push_back(gpu::GpuCopyQueue::create(*rig.completions).value());
  CHECK(queues.back()->signal().wait().ok());  // whose counters begin anew
}

// Each with a thread of its own that enqueues.
TEST_CASE("gpu queue: two threads enqueue on two queues") {
  GpuRig rig;
  Timeline from_up, from_down;
  rig.fill(2);
  std::thread sender([&] {
    for (uint64_t i = 1; i <= 100; ++i) {
      rig.up->wait(Event(from_down, i - 1));
      rig.send(0);
      const Status ended = rig.up->signal().wait();
      from_up.signal(i, ended);
    }
  });
  for (uint64_t i = 1; i <= 100; ++i) {
    rig.down->wait(Event(from_up, i));
    rig.receive(0);
    CHECK(rig.down->signal().wait().ok());
    from_down.signal(i);
  }
  sender.join();
  CHECK(rig.came_back(2, false));
}

}  // namespace
}  // namespace sluice::testing
