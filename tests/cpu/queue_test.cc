#include <doctest/doctest.h>

#include <chrono>
#include <ctime>
#include <thread>

#include "cpu/cpu_queue.h"
#include "tests/cpu/kernel_inputs.h"

using namespace sluice;
using namespace sluice::cpu;
using namespace sluice::cpu::test;

namespace {

std::unique_ptr<CpuQueue> make_queue(uint32_t n_threads, uint32_t ring = 1024, Trace* trace = nullptr) {
  CpuQueueOptions options;
  options.kernels = &kernels(best_isa());
  options.team.n_threads = n_threads;
  options.ring_commands = ring;
  options.trace = trace;
  auto queue = CpuQueue::create(std::move(options));
  REQUIRE_MESSAGE(queue.ok(), queue.status().message());
  return std::move(queue).value();
}

// out = 2 * x: a merge of one part. 20,000 floats are enough to be shared out.
struct Doubling {
  std::vector<float> x, out;
  const float* part;
  float weight = 2;

  explicit Doubling(uint32_t cols = 20'000) : x(cols, 1), out(cols), part(x.data()) {}
  MergeCall call() { return {&part, &weight, 1, 1, static_cast<uint32_t>(x.size()), false, out.data()}; }
  bool all(float value) const {
    for (const float o : out)
      if (o != value) return false;
    return true;
  }
};

// Products of f32 matrices large enough to be shared out; each writes `rows` columns of a row of `out`.
struct Products {
  static constexpr uint32_t rows = 48, cols = 256, n = 12;
  std::vector<float> weights, x, out;

  explicit Products(Random& random)
      : weights(random.normals(n * rows * cols)), x(random.normals(cols)), out(n * rows) {}
  MatmulCall call(uint32_t i, const float* from, float* to, bool accumulate) const {
    return {reinterpret_cast<const std::byte*>(&weights[size_t{i} * rows * cols]),
            DType::f32,
            rows,
            cols,
            reinterpret_cast<const std::byte*>(from),
            ActFormat::f32,
            1,
            to,
            n * rows,
            nullptr,
            accumulate};
  }
};

double process_cpu_seconds() {
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

}  // namespace

TEST_CASE("cpu queue: kernels run in order and their results are seen after the event") {
  for (uint32_t threads = 1; threads <= 4; ++threads) {
    auto queue = make_queue(threads);
    // Each call reads what the one before wrote: 2^k, in two buffers that take turns.
    std::vector<float> a(20'000, 1), b(20'000);
    const float* from_a = a.data();
    const float* from_b = b.data();
    const float two = 2;
    for (int i = 0; i < 60; ++i) {
      queue->launch(MergeCall{&from_a, &two, 1, 1, 20'000, false, b.data()});
      queue->launch(MergeCall{&from_b, &two, 1, 1, 20'000, false, a.data()});
    }
    CHECK(queue->signal().wait().ok());
    size_t wrong = 0;
    for (const float x : a) wrong += x != 0x1p120f;
    CHECK(wrong == 0);
  }
}

TEST_CASE("cpu queue: launches start after the event they wait for") {
  auto queue = make_queue(2);
  Timeline other;
  Doubling d;
  queue->wait(Event(other, 1));
  queue->launch(d.call());
  const Event done = queue->signal();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(!done.done());
  CHECK(d.all(0));
  d.x.assign(d.x.size(), 3);
  other.signal(1);
  CHECK(done.wait().ok());
  CHECK(d.all(6));
}

TEST_CASE("cpu queue: events are done in order, each for what was enqueued before it") {
  auto queue = make_queue(2);
  Timeline other;
  const Event first = queue->signal();
  CHECK(first.wait().ok());
  queue->wait(Event(other, 1));
  const Event second = queue->signal();
  queue->wait(Event(other, 2));
  const Event third = queue->signal();
  other.signal(1);
  CHECK(second.wait().ok());
  CHECK(!third.done());
  other.signal(2);
  CHECK(third.wait().ok());
}

TEST_CASE("cpu queue: a failed wait skips what follows and fails its events until reset") {
  for (uint32_t threads = 1; threads <= 2; ++threads) {
    auto queue = make_queue(threads);
    Timeline other;
    Doubling before, after, again;
    queue->launch(before.call());
    const Event ok = queue->signal();
    queue->wait(Event(other, 1));
    queue->launch(after.call());
    const Event failed = queue->signal();
    queue->wait(Event(other, 2));
    const Event failed_too = queue->signal();
    other.signal(1, Status(Code::io_error, "the disk is gone"));
    other.signal(2, Status(Code::internal, "and another"));
    CHECK(ok.wait().ok());
    CHECK(failed.wait().code() == Code::io_error);
    CHECK(failed_too.wait().message() == "the disk is gone");
    CHECK(before.all(2));
    CHECK(after.all(0));

    CHECK(queue->signal().wait().code() == Code::io_error);
    queue->reset();
    queue->launch(again.call());
    CHECK(queue->signal().wait().ok());
    CHECK(again.all(2));
    CHECK(ok.status().ok());
    CHECK(failed.status().code() == Code::io_error);
  }
}

TEST_CASE("cpu queue: a full ring makes the enqueuer wait, and nothing is lost") {
  auto queue = make_queue(2, 4);
  std::vector<float> sum(20'000, 0), ones(20'000, 1);
  const float* part = ones.data();
  const float one = 1;
  for (int i = 0; i < 1000; ++i) queue->launch(MergeCall{&part, &one, 1, 1, 20'000, true, sum.data()});
  CHECK(queue->signal().wait().ok());
  CHECK(sum.front() == 1000);
  CHECK(sum.back() == 1000);
}

TEST_CASE("cpu queue: the enqueuer of a full ring sleeps until there is room") {
  auto queue = make_queue(1, 4);
  Timeline other;
  queue->wait(Event(other, 1));
  std::thread opener([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    other.signal(1);
  });
  Event last;
  for (int i = 0; i < 20; ++i) last = queue->signal();
  CHECK(last.wait().ok());
  opener.join();
}

TEST_CASE("cpu queue: the destructor finishes what was enqueued") {
  Doubling d;
  Timeline other;
  std::thread opener([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    other.signal(1);
  });
  {
    auto queue = make_queue(2);
    queue->wait(Event(other, 1));
    queue->launch(d.call());
  }
  opener.join();
  CHECK(d.all(2));
}

TEST_CASE("cpu queue: destroyed right after its last event, many times") {
  for (int i = 0; i < 100; ++i) {
    Doubling d(8000);
    auto queue = make_queue(1 + static_cast<uint32_t>(i) % 3);
    queue->launch(d.call());
    if (i % 2 == 0) CHECK(queue->signal().wait().ok());
    queue.reset();
    CHECK(d.all(2));
  }
}

TEST_CASE("cpu queue: an idle queue, or one that waits, burns no CPU") {
  Timeline other;  // outlives the queue, which still looks at it when it ends
  auto queue = make_queue(4);
  Doubling d;
  queue->launch(d.call());
  CHECK(queue->signal().wait().ok());
  for (const bool waiting : {false, true}) {
    if (waiting) queue->wait(Event(other, 1));
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    const double before = process_cpu_seconds();
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    CHECK(process_cpu_seconds() - before < 0.01);
  }
  other.signal(1);
}

TEST_CASE("cpu queue: totals and trace count every call by its cost") {
  Trace trace(100);
  auto queue = make_queue(2, 64, &trace);
  Doubling big, small(32);
  for (int i = 0; i < 3; ++i) queue->launch(big.call());
  queue->launch(small.call());
  Timeline other;
  other.signal(1, Status(Code::cancelled, "stop"));
  CHECK(queue->signal().wait().ok());
  queue->wait(Event(other, 1));
  queue->launch(big.call());  // skipped: not counted
  CHECK(!queue->signal().wait().ok());

  const Cost one = cost(big.call()), little = cost(small.call());
  const auto totals = queue->totals();
  const KernelTotals& merge = totals[KernelCall(big.call()).index()];
  CHECK(merge.name == "merge");
  CHECK(merge.calls == 4);
  CHECK(merge.bytes == 3 * one.bytes + little.bytes);
  CHECK(merge.flops == 3 * one.flops + little.flops);
  CHECK(merge.busy_ns > 0);
  CHECK(totals[0].name == "gather_rows");
  CHECK(totals[0].calls == 0);

  queue.reset();
  REQUIRE(trace.size() == 4);
  uint64_t previous_end = 0, busy = 0;
  for (size_t i = 0; i < trace.size(); ++i) {
    CHECK(std::string_view(trace[i].lane) == "cpu");
    CHECK(std::string_view(trace[i].name) == "merge");
    CHECK(trace[i].start_ns >= previous_end);
    CHECK(trace[i].end_ns >= trace[i].start_ns);
    CHECK(trace[i].bytes == (i < 3 ? one.bytes : little.bytes));
    previous_end = trace[i].end_ns;
    busy += trace[i].end_ns - trace[i].start_ns;
  }
  CHECK(busy == merge.busy_ns);
}

TEST_CASE("cpu queue: many small steps with pauses, waits and failures in between") {
  Random random(30);
  for (uint32_t threads = 1; threads <= 4; ++threads) {
    auto queue = make_queue(threads, 16);
    Timeline other;
    std::vector<float> sum(9000, 0), ones(9000, 1);
    const float* part = ones.data();
    const float one = 1;
    float expected = 0;
    for (uint64_t step = 1; step <= 150; ++step) {
      const uint32_t calls = random.pick(0, 12);
      const bool fails = random.pick(0, 9) == 0;
      queue->wait(Event(other, step));
      std::thread signaller([&] { other.signal(step, fails ? Status(Code::io_error, "no") : Status()); });
      for (uint32_t i = 0; i < calls; ++i) queue->launch(MergeCall{&part, &one, 1, 1, 9000, true, sum.data()});
      CHECK(queue->signal().wait().ok() == !fails);
      signaller.join();
      if (fails) queue->reset();
      if (!fails) expected += static_cast<float>(calls);
      if (sum.front() != expected || sum.back() != expected) FAIL("step ", step);
      if (step % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
}

TEST_CASE("cpu queue: products give the same, whether they can do without a barrier or not") {
  Random random(31);
  for (uint32_t threads = 1; threads <= 4; ++threads) {
    auto queue = make_queue(threads);
    for (int round = 0; round < 100; ++round) {
      Products p(random);
      std::vector<MatmulCall> calls;
      for (uint32_t i = 0; i < Products::n; ++i) {
        float* own = &p.out[size_t{i} * Products::rows];
        float* earlier = &p.out[size_t{random.pick(0, i)} * Products::rows];
        float* last = &p.out[size_t{Products::n - 1} * Products::rows];
        switch (random.pick(0, 7)) {
          case 0: calls.push_back(p.call(i, p.x.data(), earlier, true)); break;
          case 1: calls.push_back(p.call(i, p.out.data(), p.x.data() + 16, false)); break;  // changes x
          case 2: calls.push_back(p.call(i, p.out.data(), last, true)); break;
          default: calls.push_back(p.call(i, p.x.data(), own, random.pick(0, 1) == 0));
        }
      }
      Products expected = p;
      const auto moved = [&](const float* at) {
        return at >= p.x.data() && at < p.x.data() + p.x.size() ? expected.x.data() + (at - p.x.data())
                                                                : expected.out.data() + (at - p.out.data());
      };
      for (MatmulCall c : calls) {
        c.x = reinterpret_cast<const std::byte*>(moved(reinterpret_cast<const float*>(c.x)));
        c.out = moved(c.out);
        kernels(best_isa()).matmul(c, {});
      }
      for (const MatmulCall& c : calls) queue->launch(c);
      CHECK(queue->signal().wait().ok());
      CHECK(same_bits(p.out, expected.out));
      CHECK(same_bits(p.x, expected.x));
    }
  }
}

TEST_CASE("cpu queue: rings that are no power of two, and no kernels, are refused") {
  CpuQueueOptions options;
  CHECK(CpuQueue::create(options).status().code() == Code::invalid_argument);
  options.kernels = &kernels(best_isa());
  options.ring_commands = 100;
  CHECK(CpuQueue::create(options).status().code() == Code::invalid_argument);
}
