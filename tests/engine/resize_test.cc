// Engine::resize: other budgets while sessions live, with the same tokens and logits as without.
#include <algorithm>
#include <atomic>
#include <optional>
#include <random>
#include <thread>

#include "engine/session.h"
#include "engine/system.h"
#include "tests/engine/hf_fixtures.h"
#include "tests/support/faulty_store.h"

namespace sluice::test {
namespace {

using engine::Blueprint;
using engine::Runtime;
using testing::Fault;
using testing::OwnedFaultyStore;

constexpr uint64_t plenty = 64 * MiB;
constexpr uint64_t unchanged = EngineOptions::automatic;  // of VRAM, where there is none

EngineOptions tiny(const std::string& model, uint64_t ram = plenty) {
  EngineOptions options = options_for(fixture(model + ".gguf"), ram);
  options.context = 64;
  options.batch = 8;
  options.sessions = 2;
  options.logit_rows = 2;
  return options;
}

// The least budget under which the plan of `options` can go on.
uint64_t least_of(const EngineOptions& options, bool* streams = nullptr) {
  const Blueprint b = must(engine::draw_up(options));
  const plan::Plan least = must(plan::replan_sparingly(b.model.graph, b.machine, b.request, b.plan));
  if (streams != nullptr) *streams = plan::traffic(b.model.graph, least, false).disk_bytes > 0;
  return least.host().budget;
}

// What a conversation gives: tokens of two sessions, one forked from the other, and logits; `between` is called before
// each of its steps.
struct Heard {
  std::vector<int32_t> tokens;
  std::vector<float> logits;
  bool operator==(const Heard&) const = default;
};
Heard converse(Engine& engine, const std::function<void(int)>& between) {
  Heard heard;
  int step = 0;
  const auto next = [&] { between(step++); };
  const auto speak = [&](Session& session, std::vector<int32_t> prompt) {
    next();
    GenerateOptions options;
    options.max_tokens = 4;
    options.ignore_end = true;
    options.sampling.seed = 7;
    const Generation g = must(session.generate(prompt, options, {}));
    heard.tokens.insert(heard.tokens.end(), g.tokens.begin(), g.tokens.end());
  };
  const auto session = must(engine.new_session());
  next();
  std::vector<int32_t> prompt(18);
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>((i * 7 + 3) % 40);
  REQUIRE(session->append(prompt).ok());
  speak(*session, {5, 6});
  const auto fork = must(session->fork());
  speak(*fork, {9});
  speak(*session, {11, 2});
  for (int i = 0; i < 3; ++i) {
    next();
    const Turn turns[] = {{session.get(), 4 + i}, {fork.get(), 8 - i}};
    const auto keep = [&](size_t, std::span<const float> row) {
      heard.logits.insert(heard.logits.end(), row.begin(), row.end());
    };
    REQUIRE(engine.decode(turns, keep).ok());
  }
  next();
  const auto scores = must(session->score(std::vector<int32_t>{1, 2, 3, 4}, 1));
  for (const TokenScore& score : scores) heard.logits.push_back(static_cast<float>(score.logprob));
  return heard;
}

bool is_whole(Engine& engine) { return engine.plan_report().disk_bytes_per_token == 0; }

TEST_CASE("resize: smaller and larger while sessions live, every model hears the same") {
  int streamed = 0;
  for (const std::string name : fixture_models) {
    INFO(name);
    const EngineOptions options = tiny(name);
    const Heard want = converse(*open(options), [](int) {});
    const auto engine = open(options);
    bool streams = false;  // not where three of its largest blocks are all there is
    const uint64_t least = least_of(options, &streams);
    streamed += streams;
    const PlanReport first = engine->plan_report();
    REQUIRE(is_whole(*engine));
    const Heard heard = converse(*engine, [&](int step) {
      const bool small = step % 2 == 0;
      const Status status = engine->resize(small ? least : plenty, unchanged);
      REQUIRE_MESSAGE(status.ok(), status.message());
      const PlanReport now = engine->plan_report();
      CHECK(is_whole(*engine) != (small && streams));
      CHECK((now.resident_bytes < first.resident_bytes) == (small && streams));
      CHECK(now.numerics_hash == first.numerics_hash);
      CHECK(now.kv_bytes == first.kv_bytes);
      CHECK(now.ram_budget == (small ? least : plenty));
      CHECK(engine->memory().ram_budget == now.ram_budget);
    });
    CHECK(heard == want);
  }
  CHECK(streamed > 6);
}

TEST_CASE("resize: any budgets, however files are read, and none is exceeded") {
  std::mt19937_64 random(3);
  for (const Load load : {Load::automatic, Load::direct, Load::buffered}) {
    EngineOptions options = tiny("llama_gqa_tied");
    options.load = load;
    const Heard want = converse(*open(options), [](int) {});
    const uint64_t least = least_of(options);
    auto runtime = start(options);
    uint64_t budget = plenty;
    for (int i = 0; i < 12; ++i) {
      const uint64_t next = least + random() % (200 * KiB);
      REQUIRE(runtime->resize(next, unchanged).ok());
      CHECK(runtime->ram().limit() == next);
      CHECK(runtime->ram().used() <= next);
      CHECK(runtime->weights_tier().capacity == runtime->plan().host().weight_arena_bytes());
      CHECK(runtime->weights_tier().used <= runtime->plan().host().weight_arena_bytes());
      budget = std::max(budget, next);
      CHECK(runtime->ram().peak() <= budget);
    }
    runtime.reset();
    const auto engine = open(options);
    const Heard heard =
        converse(*engine, [&](int) { REQUIRE(engine->resize(least + random() % (120 * KiB), unchanged).ok()); });
    CHECK(heard == want);
  }
}

TEST_CASE("resize: an engine that never had more than the least grows, and KV that spills stays where it is") {
  EngineOptions options = tiny("llama_mha", 4 * MiB);
  options.context = 512;
  uint64_t low = 0, high = 4 * MiB;  // to the page, the least budget that opens
  while (high - low > 4096) {
    const uint64_t middle = (low + high) / 2;
    options.ram = middle;
    (engine::draw_up(options).ok() ? high : low) = middle;
  }
  options.ram = high;
  const auto engine = open(options);
  const PlanReport first = engine->plan_report();
  REQUIRE(first.kv_spill_bytes > 0);
  REQUIRE(!is_whole(*engine));
  const Heard want = converse(*open(options), [](int) {});
  const Heard heard = converse(*engine, [&](int step) {
    REQUIRE(engine->resize(step % 2 == 0 ? plenty : high, unchanged).ok());
    CHECK(is_whole(*engine) == (step % 2 == 0));
    CHECK(engine->plan_report().kv_bytes == first.kv_bytes);
    CHECK(engine->plan_report().kv_spill_bytes == first.kv_spill_bytes);
  });
  CHECK(heard == want);
}

TEST_CASE("resize: what is refused names the least that works, and leaves all as it was") {
  const EngineOptions options = tiny("llama_mha");
  const Heard want = converse(*open(options), [](int) {});
  const auto engine = open(options);
  const uint64_t read = engine->memory().disk_bytes_read;
  const Heard heard = converse(*engine, [&](int) {
    const Status refused = engine->resize(10 * KiB, unchanged);
    CHECK(refused.code() == Code::over_budget);
    CHECK(refused.message().find("least that works is --ram") != std::string::npos);
    CHECK(engine->plan_report().ram_budget == plenty);
    CHECK(engine->memory().ram_budget == plenty);
    CHECK(is_whole(*engine));
  });
  CHECK(heard == want);
  CHECK(engine->memory().disk_bytes_read == read);

  const uint64_t least = least_of(options);
  CHECK(engine->resize(least - 1, unchanged).code() == Code::over_budget);
  CHECK(engine->resize(least, unchanged).ok());
}

TEST_CASE("resize: where nothing has to move nothing is read") {
  const auto engine = open(tiny("llama_mha"));
  const uint64_t read = engine->memory().disk_bytes_read;
  REQUIRE(engine->resize(plenty / 2, unchanged).ok());
  CHECK(engine->memory().ram_budget == plenty / 2);
  CHECK(engine->plan_report().ram_budget == plenty / 2);
  CHECK(engine->memory().disk_bytes_read == read);
}

TEST_CASE("resize: 0 is what is affordable") {
  const auto engine = open(tiny("llama_mha"));
  REQUIRE(engine->resize(least_of(tiny("llama_mha")), unchanged).ok());
  REQUIRE(engine->resize(0, unchanged).ok());
  CHECK(engine->memory().ram_budget > plenty);  // of any machine that builds this
  CHECK(is_whole(*engine));
}

TEST_CASE("resize: threads generate and ask for reports meanwhile") {
  const EngineOptions options = tiny("llama_gqa_tied");
  const uint64_t least = least_of(options);
  const auto speak = [](Session& session) {
    GenerateOptions o;
    o.max_tokens = 40;
    o.ignore_end = true;
    o.sampling.seed = 3;
    return must(session.generate(std::vector<int32_t>{1, 5, 9}, o, {})).tokens;
  };
  const auto reference = open(options);
  const auto want = speak(*must(reference->new_session()));

  const auto engine = open(options);
  std::atomic<int> speaking{2}, wrong{0};
  const auto talk = [&] {
    for (int i = 0; i < 6; ++i) wrong += speak(*must(engine->new_session())) != want;
    --speaking;
  };
  const auto report = [&] {
    while (speaking > 0) {
      const PlanReport plan = engine->plan_report();
      uint64_t given = 0;
      for (const auto& item : plan.memory) given += item.second;
      wrong += given > plan.ram_budget;
      wrong += engine->memory().ram_peak > plenty;
      wrong += engine->tiers().empty();
    }
  };
  std::thread first(talk), second(talk), third(report);
  int resized = 0;
  for (; speaking > 0 || resized < 8; ++resized) {
    REQUIRE(engine->resize(resized % 2 == 0 ? least : plenty, unchanged).ok());
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // a mutex is not fair
  }
  first.join(), second.join(), third.join();
  CHECK(wrong == 0);
}

TEST_SUITE_BEGIN("exactness");

// The weights as they lie in memory are given back: a model of many MiB.
TEST_CASE("resize: memory goes back to the system, and KV and results stay") {
  const std::string model = fetched_model("SLUICE_MODEL", "SmolLM2-135M-Instruct.Q4_1.gguf");
  if (model.empty()) return;
  EngineOptions options = options_for(model, 512 * MiB);
  options.context = 256;
  const auto run = [&](const std::function<void(Engine&, int)>& between) {
    const auto engine = open(options);
    const auto session = must(engine->new_session());
    std::vector<int32_t> tokens;
    for (int i = 0; i < 3; ++i) {
      between(*engine, i);
      GenerateOptions o;
      o.max_tokens = 3;
      o.ignore_end = true;
      const Generation g = must(session->generate(std::vector<int32_t>{504, 702, 253 + i}, o, {}));
      tokens.insert(tokens.end(), g.tokens.begin(), g.tokens.end());
    }
    return tokens;
  };
  const auto want = run([](Engine&, int) {});
  uint64_t large = 0;
  const auto got = run([&](Engine& engine, int i) {
    if (i == 0) large = engine::resident_memory();
    if (i == 0) return;
    REQUIRE(engine.resize(i == 1 ? 48 * MiB : 512 * MiB, unchanged).ok());
    const uint64_t now = engine::resident_memory();
    if (i == 1) CHECK(now + 40 * MiB < large);
    else CHECK(now < large + 16 * MiB);
  });
  CHECK(got == want);
}

TEST_SUITE_END();

struct Faulty {
  OwnedFaultyStore* store = nullptr;
  std::unique_ptr<Runtime> runtime;

  explicit Faulty(const EngineOptions& options) {
    Blueprint blueprint = must(engine::draw_up(options));
    blueprint.wrap_store = [this](std::unique_ptr<Store> inner) {
      auto owned = std::make_unique<OwnedFaultyStore>(std::move(inner));
      store = owned.get();
      return owned;
    };
    runtime = must(Runtime::start(std::move(blueprint)));
  }
};

TEST_CASE("resize: whichever read of the reload fails, sessions keep what they hold and a later resize repairs") {
  EngineOptions options = tiny("llama_mha");
  options.load = Load::direct;
  const uint64_t least = least_of(options);
  const std::vector<int32_t> prompt = {1, 5, 9, 2, 7, 3, 11}, rest = {4, 6, 8};
  const auto logits_behind = [&](engine::SessionImpl& session) { return must(session.score(rest, 1)).back().logprob; };
  Faulty whole(options);
  auto never = must(engine::SessionImpl::create(*whole.runtime));
  REQUIRE(never->append(prompt).ok());
  const double want = logits_behind(dynamic_cast<engine::SessionImpl&>(*never));

  Faulty faulty(options);
  uint64_t failed = 0;
  for (uint64_t nth = 1; nth < 200; ++nth) {
    auto session = must(engine::SessionImpl::create(*faulty.runtime));
    REQUIRE(session->append(prompt).ok());
    const uint64_t struck = faulty.store->faults().faults();
    faulty.store->faults().set({Fault::Kind::eio, IoRequest::Op::read, nth});
    const uint64_t to = faulty.runtime->ram().limit() == plenty ? least : plenty;
    const Status status = faulty.runtime->resize(to, unchanged);
    faulty.store->faults().clear();
    if (faulty.store->faults().faults() == struck) {
      CHECK(status.ok());
      if (to == least) continue;  // which reads least
      break;
    }
    ++failed;
    CHECK(status.code() == Code::io_error);
    CHECK(status.message().find("injected") != std::string::npos);
    for (int i = 0; i < 2; ++i) {
      const Status later = session->append(rest);
      CHECK(later.code() == Code::io_error);
      CHECK(later.message().find("resize") != std::string::npos);
      CHECK(session->length() == prompt.size());
    }
    CHECK(faulty.runtime->disk().in_flight == 0);
    CHECK(faulty.runtime->weights_tier().used == 0);
    CHECK(faulty.runtime->resize(10 * KiB, unchanged).code() == Code::over_budget);
    REQUIRE(faulty.runtime->resize(to, unchanged).ok());
    CHECK(logits_behind(dynamic_cast<engine::SessionImpl&>(*session)) == want);
  }
  CHECK(failed > 3);
}

// --- by itself

struct Adapting {
  uint64_t free = GiB;
  std::vector<std::string> warnings;
  std::unique_ptr<Runtime> runtime;

  explicit Adapting(EngineOptions options, uint64_t low) {
    options.warn = [this](std::string_view line) { warnings.emplace_back(line); };
    Blueprint blueprint = must(engine::draw_up(options));
    blueprint.ram_automatic = true;  // as if that were what was affordable
    blueprint.pressure = {[this] { return free; }, low, 0, 0, 0};
    runtime = must(Runtime::start(std::move(blueprint)));
  }
};

TEST_CASE("resize: an engine that was given no budget shrinks under pressure and grows when it is gone") {
  const EngineOptions options = tiny("llama_mha");
  const std::vector<int32_t> prompt = {1, 5, 9, 2, 7, 3, 11};
  const auto reference = start(options);
  auto never = must(engine::SessionImpl::create(*reference));
  constexpr uint64_t low = 12 * KiB;
  Adapting machine(options, low);
  auto session = must(engine::SessionImpl::create(*machine.runtime));
  const auto both = [&] {
    const auto want = must(never->score(prompt, 1)), got = must(session->score(prompt, 1));
    for (size_t i = 0; i < want.size(); ++i) CHECK(got[i].logprob == want[i].logprob);
    REQUIRE(never->truncate(0).ok());
    REQUIRE(session->truncate(0).ok());
  };
  both();
  CHECK(machine.warnings.empty());
  CHECK(machine.runtime->ram().limit() == plenty);

  const uint64_t used = machine.runtime->ram().used();
  machine.free = low - 1;
  both();
  REQUIRE(machine.warnings.size() == 1);
  CHECK(machine.warnings[0].find("free") != std::string::npos);
  CHECK(machine.runtime->ram().limit() == used - (low + 1));
  CHECK(machine.runtime->ram().used() <= machine.runtime->ram().limit());
  CHECK(machine.runtime->plan().host().resident_bytes < reference->plan().host().resident_bytes);

  machine.free = 3 * low;  // neither short nor plenty
  both();
  CHECK(machine.warnings.size() == 1);
  machine.free = GiB;
  both();
  CHECK(machine.warnings.size() == 2);
  CHECK(machine.runtime->ram().limit() == plenty);
  CHECK(machine.runtime->plan().host().resident_bytes == reference->plan().host().resident_bytes);

  REQUIRE(machine.runtime->resize(plenty, unchanged).ok());  // now the user has said what to take
  machine.free = 0;
  both();
  CHECK(machine.runtime->ram().limit() == plenty);
  CHECK(machine.warnings.size() == 2);
}

TEST_CASE("resize: an engine that cannot do with less goes on as it is, and says so once") {
  Adapting machine(tiny("llama_mha"), 64 * MiB);
  machine.free = 0;
  auto session = must(engine::SessionImpl::create(*machine.runtime));
  for (int i = 0; i < 3; ++i) REQUIRE(session->append(std::vector<int32_t>{1, 2}).ok());
  CHECK(machine.runtime->ram().limit() == plenty);
  REQUIRE(machine.warnings.size() == 1);
  CHECK(machine.warnings[0].find("least that works is --ram") != std::string::npos);
}

TEST_CASE("resize: an engine with a budget of the user's looks at nothing") {
  Blueprint blueprint = must(engine::draw_up(tiny("llama_mha")));
  int looks = 0;
  blueprint.pressure.free_memory = [&] { return ++looks, uint64_t{0}; };
  const auto runtime = must(Runtime::start(std::move(blueprint)));
  auto session = must(engine::SessionImpl::create(*runtime));
  REQUIRE(session->append(std::vector<int32_t>{1, 2}).ok());
  CHECK(looks == 0);
  CHECK(runtime->ram().limit() == plenty);
}

}  // namespace
}  // namespace sluice::test
