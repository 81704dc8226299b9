// Engine::resize with a GPU, the stand-in or a real one: KV stays there while the memory of weights is given back and
// taken anew.
#include "tests/gpu/engine/resize_rig.h"

namespace sluice::test {

TEST_CASE("gpu resize: VRAM and RAM shrink and grow while sessions live, on both sites") {
  const auto want = never_resized(mixed());
  const Budgets least = least_of(mixed());
  const DeviceScope scope{DeviceOptions{}};
  auto runtime = must(Runtime::start(blueprint_of(mixed())));
  CHECK(!streams(*runtime));
  const std::string hash = runtime->plan().numerics.hash();
  const std::vector<Budgets> turns = {
      {plenty, least.vram}, {least.ram, least.vram}, {plenty, plenty}, {least.ram, plenty}, {plenty, least.vram}};
  const auto heard = converse(*runtime, [&](int step) {
    const Budgets& to = turns[static_cast<size_t>(step)];
    const Status status = runtime->resize(to.ram, to.vram);
    REQUIRE_MESSAGE(status.ok(), status.message());
    CHECK(streams(*runtime) == (to.vram < plenty));
    CHECK(runtime->plan().numerics.hash() == hash);
    CHECK(runtime->ram().limit() == to.ram);
    CHECK(runtime->ram().used() <= to.ram);
    CHECK(runtime->accelerators().front()->budget().limit() == to.vram);
    CHECK(device_bytes(*runtime) <= to.vram);
  });
  CHECK(heard == want);
  CHECK(runtime->ram().peak() <= plenty);
  CHECK(runtime->accelerators().front()->budget().peak() <= plenty);
}

TEST_CASE("gpu resize: KV that lies at both sites stays at both") {
  GpuEngineOptions o;
  o.near_pages = 1;
  o.split = [](size_t, bool) { return 0u; };  // small tiles, so that some can stream
  EngineOptions e = options();
  e.context = 160;
  const auto run = [&](bool resized) {
    const DeviceScope scope{DeviceOptions{}};
    Blueprint b = blueprint_of(o, e);
    REQUIRE(b.plan.numerics.near_pages == 1);
    const plan::Plan least = must(plan::replan_sparingly(b.model.graph, b.machine, b.request, b.plan));
    auto runtime = must(Runtime::start(std::move(b)));
    auto session = must(SessionImpl::create(*runtime));
    REQUIRE(session->append(std::vector<int32_t>(80, 7)).ok());  // more than a page
    std::vector<double> heard;
    for (int i = 0; i < 4; ++i) {
      const bool small = i % 2 == 0;
      if (resized) REQUIRE(runtime->resize(plenty, small ? least.movement.sites[1].budget : plenty).ok());
      if (resized) CHECK(streams(*runtime) == small);
      for (const TokenScore& score : must(session->score(std::vector<int32_t>{1, 2 + i, 3, 4}, 1)))
        heard.push_back(score.logprob);
    }
    return heard;
  };
  CHECK(run(true) == run(false));
}

TEST_CASE("gpu resize: what is refused names the flag and the least, and leaves all as it was") {
  const auto want = never_resized(mixed());
  const Budgets least = least_of(mixed());
  const DeviceScope scope{DeviceOptions{}};
  auto runtime = must(Runtime::start(blueprint_of(mixed())));
  const uint64_t copied = runtime->accelerators().front()->gpu().bytes_to_device();
  const auto refused = [&](uint64_t ram, uint64_t vram, const std::string& what) {
    const Status status = runtime->resize(ram, vram);
    CHECK(status.code() == Code::over_budget);
    CHECK_MESSAGE(status.message().find(what) != std::string::npos, status.message());
  };
  const auto heard = converse(*runtime, [&](int step) {
    if (step > 0) return;
    refused(plenty, least.vram - 1, "least that works is --vram");
    refused(plenty, 0, "least that works is --vram");
    refused(least.ram - 1, least.vram, "least that works is --ram");
    refused(plenty, uint64_t{1} << 50, "free");
    CHECK(runtime->accelerators().front()->gpu().bytes_to_device() == copied);
    CHECK(runtime->accelerators().front()->budget().limit() == plenty);
    CHECK(runtime->ram().limit() == plenty);
  });
  CHECK(heard == want);
}

}  // namespace sluice::test
