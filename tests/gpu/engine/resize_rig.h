// What the tests of Engine::resize with a GPU share: budgets, and a conversation that goes on while they change.
#pragma once

#include "engine/session.h"
#include "tests/gpu/engine/gpu_engine_rig.h"
#include "tests/support/gpu_machine.h"

namespace sluice::test {

using engine::Blueprint;
using engine::Runtime;
using engine::SessionImpl;

inline constexpr uint64_t plenty = 64 * MiB;

// Ops and KV at both, FFNs divided.
inline GpuEngineOptions mixed() {
  GpuEngineOptions o;
  o.placed = [](size_t i, bool) { return i % 3 != 1; };
  o.split = [](size_t, bool) { return 16u; };
  return o;
}

inline EngineOptions options() {
  EngineOptions o = options_for(fixture("llama_bias.gguf"), plenty);
  o.context = 48;
  o.batch = 16;
  o.logit_rows = 16;
  o.sessions = 3;
  return o;
}

// The places of `o`, under budgets that hold all weights where they are used.
inline Blueprint blueprint_of(const GpuEngineOptions& o, EngineOptions options = test::options()) {
  Blueprint b = must(place_on_gpu(std::move(options), o));
  b.machine = testing::gpu_machine(20, 400, 10, 5);
  b.request.accelerators = {{"gpu 0", plenty, 0, {{"granules", 2 * gpu::gpu_memory_cost(1)}}, true}};
  b.plan = must(plan::replan(b.model.graph, b.machine, b.request, b.plan));
  return b;
}

struct Budgets {
  uint64_t ram = 0, vram = 0;
};
inline Budgets least_of(const GpuEngineOptions& o) {
  const Blueprint b = blueprint_of(o);
  const plan::Plan least = must(plan::replan_sparingly(b.model.graph, b.machine, b.request, b.plan));
  return {least.host().budget, least.movement.sites[1].budget};
}

using Sessions = std::vector<std::unique_ptr<Session>>;

// Tokens and scores of two sessions, one forked from the other; `between` is called before each of its steps.
inline std::vector<double> converse(Runtime& runtime, const std::function<void(int)>& between) {
  std::vector<double> heard;
  int step = 0;
  const auto speak = [&](Session& session, const std::vector<int32_t>& prompt) {
    between(step++);
    GenerateOptions o;
    o.max_tokens = 3;
    o.ignore_end = true;
    o.sampling.seed = 7;
    for (const int32_t token : must(session.generate(prompt, o, {})).tokens) heard.push_back(token);
  };
  Sessions sessions;
  sessions.push_back(must(SessionImpl::create(runtime)));
  std::vector<int32_t> prompt(18);
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>((i * 7 + 3) % 40);
  speak(*sessions[0], prompt);
  speak(*sessions[0], {5, 6});
  sessions.push_back(must(sessions[0]->fork()));
  speak(*sessions[1], {9});
  speak(*sessions[0], {11, 2});
  between(step++);
  for (const auto& session : sessions)
    for (const TokenScore& score : must(session->score(std::vector<int32_t>{1, 2, 3, 4}, 1)))
      heard.push_back(score.logprob);
  return heard;
}

inline std::vector<double> never_resized(const GpuEngineOptions& o) {
  const DeviceScope scope{DeviceOptions{}};
  return converse(*must(Runtime::start(blueprint_of(o))), [](int) {});
}

inline bool streams(const Runtime& runtime) {
  return plan::traffic(runtime.graph(), runtime.plan(), false).link_bytes[1] > 0;
}

inline uint64_t device_bytes(const Runtime& runtime) { return runtime.accelerators().front()->budget().used(); }

}  // namespace sluice::test
