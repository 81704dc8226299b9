// What can go wrong with a GPU, seen through a whole engine: a clean error, everything given back, and the next
// step runs as if nothing had happened.
#include <map>
#include <thread>

#include "tests/engine/sampling_rig.h"
#include "tests/gpu/engine/gpu_engine_rig.h"

namespace sluice::test {
namespace {

using standin::Call;

// Half on the GPU, a third of that resident, FFNs divided: every kind of call is made.
GpuEngineOptions mixed() {
  GpuEngineOptions o;
  o.placed = [](size_t i, bool) { return i % 3 != 1; };
  o.split = [](size_t, bool) { return 16u; };  // of 33
  o.resident = 0.3;
  o.host_resident = 0.5;
  return o;
}

EngineOptions options() {
  EngineOptions o = options_for(fixture("llama_bias.gguf"), 64 * MiB);
  o.context = 48;
  o.batch = 16;
  o.logit_rows = 16;
  return o;
}

// A prompt and two decoded tokens: the logits of all, or the first failure.
Result<std::vector<float>> run(engine::Runtime& runtime) {
  SLUICE_ASSIGN_OR_RETURN(const SequenceId sequence, runtime.kv().create());
  std::vector<float> logits;
  Status status;
  for (int step = 0; step < 3 && status.ok(); ++step) {
    Batch batch;
    batch.prompt = step == 0;
    for (int i = 0; i < (step == 0 ? 9 : 1); ++i) {
      const int at = step == 0 ? i : 8 + step;
      batch.tokens.push_back({(at * 7 + 3) % 40, at, sequence, 0, true});
    }
    const auto result = runtime.step(batch);
    status = result.status();
    if (result.ok())
      logits.insert(logits.end(), result->logits, result->logits + result->n_rows * runtime.graph().n_vocab);
  }
  runtime.kv().destroy(sequence);
  if (!status.ok()) return status;
  return logits;
}

Result<std::unique_ptr<engine::Runtime>> start(const GpuEngineOptions& o) {
  SLUICE_ASSIGN_OR_RETURN(auto blueprint, place_on_gpu(options(), o));
  return engine::Runtime::start(std::move(blueprint));
}

// In a fresh device: what was the first failure, and what becomes of a run after it.
struct Outcome {
  bool failed = false;
  std::string message;
};
Outcome run_with_fault(Call call, uint64_t nth, bool lasting, const GpuEngineOptions& o,
                       const std::vector<float>& want) {
  const testing::StandIn scope;
  standin::fail(call, nth, cudaErrorUnknown);
  auto runtime = start(o);
  if (!runtime.ok()) return {true, runtime.status().message()};
  const auto first = run(**runtime);
  standin::fail(call, UINT32_MAX, cudaSuccess);
  if (first.ok()) CHECK(*first == want);
  auto second = run(**runtime);
  // What was read ahead behind the last step is met by the first one of the next run.
  const Status met = first.ok() ? second.status() : first.status();
  if (first.ok() && !second.ok()) second = run(**runtime);
  if (!lasting) REQUIRE_MESSAGE(second.ok(), second.status().message());
  if (second.ok()) CHECK(*second == want);
  return {!met.ok(), met.message()};
}

void fail_each(const std::vector<std::pair<const char*, Call>>& calls, const GpuEngineOptions& o) {
  std::vector<float> want;
  std::map<Call, uint64_t> times;
  {
    const testing::StandIn scope;
    auto runtime = must(start(o));
    want = must(run(*runtime));
    for (const auto& [name, call] : calls) times[call] = standin::calls(call);
  }
  const uint64_t most = std::string(SLUICE_SANITIZE).empty() ? 24 : 4;  // spread over all
  for (const auto& [name, call] : calls) {
    INFO(name, ", called ", times[call], " times");
    REQUIRE(times[call] > 0);
    const bool lasting = call == Call::run_kernel || call == Call::run_copy;
    uint64_t failures = 0;
    const uint64_t step = std::max<uint64_t>(1, times[call] / most);
    for (uint64_t nth = 1; nth <= times[call]; nth += step) {
      INFO("the ", nth, "th");
      const Outcome outcome = run_with_fault(call, nth, lasting, o, want);
      failures += outcome.failed;
      if (outcome.failed) CHECK(!outcome.message.empty());
    }
    // Where pinning is refused there is another way.
    if (call != Call::host_register) CHECK(failures > 0);
  }
}

}  // namespace

TEST_CASE("gpu engine: decoding with all at hand is recorded once for many lengths, and replayed") {
  const Fixture f("llama_mha");
  const std::vector<int32_t> ids(40, 3);
  const GpuEngine engine(options_of(f, Precision::fast), {});
  (void)all_logits(*engine.runtime, ids, 1);
  CHECK(standin::calls(standin::Call::graph_launch) == ids.size());
  CHECK(standin::calls(standin::Call::graph_instantiate) == 1);
  const uint64_t launches = standin::calls(standin::Call::launch);
  (void)all_logits(*engine.runtime, ids, 1);
  CHECK(standin::calls(standin::Call::launch) == launches);
  CHECK(engine.runtime->accelerators().front()->gpu().bytes_computed_on() > 0);
}

TEST_CASE("gpu engine: a recording serves whatever sampling asks for, and leaves the logits where they are") {
  const Fixture f("llama_mha");
  const GpuEngine engine(options_of(f, Precision::fast), {});
  const auto generate = [&](From from) {
    for (engine::SamplerOptions o : kinds_of_sampling())
      if (o.top_k > 0) (void)generated(*engine.runtime, o, {3}, 10, from);
  };
  generate(From::best);
  CHECK(standin::calls(standin::Call::graph_instantiate) == 1);
  const uint64_t launches = standin::calls(standin::Call::launch);
  generate(From::best);
  CHECK(standin::calls(standin::Call::graph_instantiate) == 1);
  CHECK(standin::calls(standin::Call::launch) == launches);
  generate(From::logits);
  CHECK(standin::calls(standin::Call::graph_instantiate) == 2);
}

TEST_CASE("gpu engine: each call that records a step fails at its Nth time") {
  fail_each({{"cudaStreamBeginCapture", Call::begin_capture},
             {"cudaStreamEndCapture", Call::end_capture},
             {"cudaGraphInstantiate", Call::graph_instantiate},
             {"cudaGraphLaunch", Call::graph_launch},
             {"a launch", Call::launch},
             {"a kernel", Call::run_kernel}},
            {});
}

TEST_CASE("gpu engine: each call of CUDA fails at its Nth time") {
  const std::vector<std::pair<const char*, Call>> calls = {
      {"cudaMalloc", Call::malloc},
      {"cudaHostRegister", Call::host_register},
      {"cudaHostAlloc", Call::host_alloc},
      {"cudaStreamCreate", Call::stream_create},
      {"cudaEventCreate", Call::event_create},
      {"cudaMemcpyAsync", Call::memcpy_async},
      {"cudaEventRecord", Call::event_record},
      {"cudaStreamWaitEvent", Call::stream_wait_event},
      {"a launch", Call::launch},
      {"cuStreamWaitValue64", Call::wait_value},
      {"cuStreamWriteValue64", Call::write_value},
      {"a kernel", Call::run_kernel},
      {"a copy", Call::run_copy},
  };
  fail_each(calls, mixed());
}

TEST_CASE("gpu engine: where pinning is refused copies go through a ring, with a warning") {
  std::vector<float> want;
  {
    const testing::StandIn scope;
    want = must(run(*must(start(mixed()))));
  }
  const testing::StandIn scope;
  standin::fail(Call::host_register, 1, cudaErrorNotSupported);
  EngineOptions o = options();
  std::vector<std::string> warnings;
  o.warn = [&](std::string_view line) { warnings.emplace_back(line); };
  auto blueprint = must(place_on_gpu(o, mixed()));
  auto runtime = must(engine::Runtime::start(std::move(blueprint)));
  REQUIRE(warnings.size() == 1);
  CHECK(warnings[0].find("pinned ring") != std::string::npos);
  CHECK(must(run(*runtime)) == want);
}

TEST_CASE("gpu engine: another process takes the memory between plan and run") {
  const testing::StandIn scope;
  auto blueprint = must(place_on_gpu(options(), mixed()));
  standin::take_memory((1ull << 30) - (256 << 10));
  const auto runtime = engine::Runtime::start(std::move(blueprint));
  REQUIRE(!runtime.ok());
  CHECK(runtime.status().code() == Code::over_budget);
  CHECK(runtime.status().message().find("--vram") != std::string::npos);
  standin::take_memory(0);
}

TEST_CASE("gpu engine: the device is lost at any moment") {
  std::vector<float> want;
  for (int i = 0; i < 12; ++i) {
    const testing::StandIn scope;
    auto runtime = must(start(mixed()));
    std::thread later([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(i * 1500));
      standin::lose_device();
    });
    for (int turn = 0; turn < 3; ++turn) (void)run(*runtime);
    later.join();
    const auto after = run(*runtime);
    REQUIRE(!after.ok());
    CHECK(after.status().code() == Code::unavailable);
    CHECK(!runtime->accelerators().front()->gpu().lost().ok());
  }
}

}  // namespace sluice::test
