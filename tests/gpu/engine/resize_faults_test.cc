// Engine::resize with a GPU, where something fails or others take memory; and what becomes of recorded steps.
#include "tests/gpu/engine/resize_rig.h"
#include "tests/support/faulty_store.h"

namespace sluice::test {

using standin::Call;
using testing::Fault;
using testing::OwnedFaultyStore;

TEST_CASE("gpu resize: a step that was recorded is recorded anew") {
  GpuEngineOptions all;
  all.split = [](size_t, bool) { return 0u; };  // small tiles, so that some can stream
  const auto want = never_resized(all);
  const Budgets least = least_of(all);
  const testing::StandIn scope;
  auto runtime = must(Runtime::start(blueprint_of(all)));
  const auto heard = converse(*runtime, [&](int step) {
    if (step == 1) CHECK(standin::live().graphs > 0);
    REQUIRE(runtime->resize(plenty, step % 2 == 1 ? least.vram : plenty).ok());
    CHECK(streams(*runtime) == (step % 2 == 1));
    CHECK(standin::live().device_bytes <= runtime->accelerators().front()->budget().limit());
    if (step > 0) CHECK(standin::live().graphs == 0);
  });
  CHECK(heard == want);
  CHECK(standin::calls(Call::graph_instantiate) > 1);
}

TEST_CASE("gpu resize: automatic takes what is free") {
  const testing::StandIn scope;
  auto runtime = must(Runtime::start(blueprint_of(mixed())));
  standin::take_memory(600 * MiB);
  REQUIRE(runtime->resize(plenty, EngineOptions::automatic).ok());
  const uint64_t budget = runtime->accelerators().front()->budget().limit();
  CHECK(budget > 128 * MiB);
  CHECK(budget < 424 * MiB);
  standin::take_memory(0);
}

// Memory that others have taken in between: with the least there is, if that is there.
TEST_CASE("gpu resize: an allocation fails, and the engine goes on with the least that works") {
  const auto want = never_resized(mixed());
  const Budgets least = least_of(mixed());
  for (const Call call : {Call::malloc, Call::host_register}) {
    const testing::StandIn scope;
    std::vector<std::string> warnings;
    EngineOptions o = options();
    o.warn = [&](std::string_view line) { warnings.emplace_back(line); };
    auto runtime = must(Runtime::start(blueprint_of(mixed(), o)));
    const auto heard = converse(*runtime, [&](int step) {
      if (step == 1) standin::fail(call, 1, cudaErrorMemoryAllocation);
      if (step == 1 || step == 3) REQUIRE(runtime->resize(plenty, step == 1 ? plenty / 2 : plenty).ok());
      if (step == 0) REQUIRE(runtime->resize(plenty, least.vram).ok());
      if (step != 1) return;
      CHECK(streams(*runtime) == (call == Call::malloc));
      REQUIRE(warnings.size() == 1);
      CHECK(warnings[0].find(call == Call::malloc ? "resize when there is more" : "pinned ring") != std::string::npos);
    });
    CHECK(heard == want);
    CHECK(!streams(*runtime));
    CHECK(warnings.size() == 1);
  }
}

TEST_CASE("gpu resize: where not even the least is there, steps fail until it is") {
  const auto want = never_resized(mixed());
  const Budgets least = least_of(mixed());
  const testing::StandIn scope;
  Blueprint b = blueprint_of(mixed());
  OwnedFaultyStore* store = nullptr;
  b.wrap_store = [&](std::unique_ptr<Store> inner) {
    auto owned = std::make_unique<OwnedFaultyStore>(std::move(inner));
    store = owned.get();
    return owned;
  };
  auto runtime = must(Runtime::start(std::move(b)));
  const auto heard = converse(*runtime, [&](int step) {
    // Others take what the engine has just given back.
    store->when_region_changes([] { standin::take_memory(GiB - standin::live().device_bytes); });
    const Status status = step % 2 == 0 ? runtime->resize(plenty, least.vram) : runtime->resize(least.ram, plenty);
    CHECK(status.code() == Code::over_budget);
    CHECK(status.message().find("--vram") != std::string::npos);
    auto other = must(SessionImpl::create(*runtime));
    for (int i = 0; i < 2; ++i) {
      const Status later = other->append(std::vector<int32_t>{1, 2});
      CHECK(later.code() == Code::over_budget);
      CHECK(later.message().find("resize it again") != std::string::npos);
    }
    const Turn turn{other.get(), 3};
    CHECK(SessionImpl::decode(*runtime, {&turn, 1}, {}).code() == Code::over_budget);
    CHECK(other->length() == 0);
    CHECK(runtime->weights_tier().used == 0);
    store->when_region_changes({});
    standin::take_memory(0);
    REQUIRE(runtime->resize(plenty, plenty).ok());
  });
  CHECK(heard == want);
}

TEST_CASE("gpu resize: each call of CUDA fails at its Nth time during a resize, and a later one repairs") {
  const auto want = never_resized(mixed());
  const Budgets least = least_of(mixed());
  int failed = 0;
  for (const Call call : {Call::malloc, Call::host_register, Call::memcpy_async, Call::event_record,
                          Call::stream_wait_event, Call::write_value, Call::wait_value}) {
    for (uint64_t nth = 1; nth < 8; ++nth) {
      INFO("call ", static_cast<int>(call), ", the ", nth, "th");
      const testing::StandIn scope;
      auto runtime = must(Runtime::start(blueprint_of(mixed())));
      const auto heard = converse(*runtime, [&](int step) {
        if (step != 1 && step != 3) return;
        standin::fail(call, nth, cudaErrorUnknown);
        const Status status = runtime->resize(plenty, step == 1 ? least.vram : plenty);
        standin::fail(call, UINT32_MAX, cudaSuccess);
        if (status.ok()) return;
        ++failed;
        CHECK(!status.message().empty());
        auto session = must(SessionImpl::create(*runtime));
        const Status later = session->append(std::vector<int32_t>{1, 2});
        CHECK(later.code() == status.code());
        CHECK(later.message().find("resize") != std::string::npos);
        CHECK(session->length() == 0);
        session.reset();
        const Status again = runtime->resize(plenty, plenty);
        REQUIRE_MESSAGE(again.ok(), again.message());
      });
      CHECK(heard == want);
    }
  }
  CHECK(failed > 4);
}

TEST_CASE("gpu resize: the disk fails while weights are loaded again, and a later resize repairs") {
  const auto want = never_resized(mixed());
  const Budgets least = least_of(mixed());
  const testing::StandIn scope;
  OwnedFaultyStore* store = nullptr;
  Blueprint b = blueprint_of(mixed());
  b.wrap_store = [&](std::unique_ptr<Store> inner) {
    auto owned = std::make_unique<OwnedFaultyStore>(std::move(inner));
    store = owned.get();
    return owned;
  };
  auto runtime = must(Runtime::start(std::move(b)));
  uint64_t failed = 0;
  const auto heard = converse(*runtime, [&](int step) {
    for (uint64_t nth = 1; nth < 12; ++nth) {
      store->faults().set({Fault::Kind::eio, IoRequest::Op::read, nth});
      const Status status = runtime->resize(step % 2 == 0 ? least.ram : plenty, nth % 2 == 0 ? least.vram : plenty);
      store->faults().clear();
      if (status.ok()) continue;
      ++failed;
      CHECK(status.code() == Code::io_error);
    }
    REQUIRE(runtime->resize(plenty, step % 2 == 0 ? least.vram : plenty).ok());
  });
  CHECK(heard == want);
  CHECK(failed > 8);
}

TEST_CASE("gpu resize: a device that is lost stays an error, and nothing hangs") {
  const testing::StandIn scope;
  auto runtime = must(Runtime::start(blueprint_of(mixed())));
  auto session = must(SessionImpl::create(*runtime));
  REQUIRE(session->append(std::vector<int32_t>{1, 2, 3}).ok());
  const Budgets least = least_of(mixed());
  standin::lose_device();
  CHECK(!runtime->resize(plenty, least.vram).ok());
  CHECK(!session->append(std::vector<int32_t>{1, 2, 3}).ok());
  CHECK(session->length() == 3);
}

}  // namespace sluice::test
