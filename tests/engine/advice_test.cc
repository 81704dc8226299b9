// What more of something would give, and that it is asked under what the user fixed.
#include "engine/advice.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>

#include "tests/support/gpu_machine.h"
#include "tests/support/tiny_graph.h"

using namespace sluice;
using namespace sluice::engine;

namespace {

// Three layers of which a slow link brings what a fast GPU does not hold; FFNs where `ffn` says.
Blueprint blueprint(uint8_t ffn) {
  testing::TinyOptions o;
  o.n_layers = 3;
  o.hidden = 256;
  o.head_dim = 64;
  o.ffn = 2048;
  Blueprint b;
  b.model.graph = testing::make_tiny(o).graph;
  b.machine = testing::gpu_machine(10, 1000, 2, 1);
  b.request.accelerators = {{"gpu 0", 6 * MiB, 0, {}, true}};
  b.request.ram_budget = GiB;
  b.request.context = 256;
  b.request.spill_limit = std::numeric_limits<uint64_t>::max();
  if (ffn != plan::any_site) {
    b.request.pinned.assign(b.model.graph.ops.size(), plan::any_site);
    for (size_t i = 0; i < b.model.graph.ops.size(); ++i)
      if (std::holds_alternative<FfnOp>(b.model.graph.ops[i])) b.request.pinned[i] = ffn;
  }
  auto plan = plan::make_plan(b.model.graph, b.machine, b.request);
  REQUIRE_MESSAGE(plan.ok(), plan.status().message());
  b.plan = std::move(*plan);
  return b;
}

double told(const std::vector<HelpReport>& helps, const std::string& what) {
  const auto help = std::find_if(helps.begin(), helps.end(), [&](const HelpReport& h) { return h.what == what; });
  return help != helps.end() ? help->decode_tok_s : 0;
}

}  // namespace

TEST_CASE("advice: more VRAM gives what a plan with more of it predicts, the best help first") {
  const Blueprint b = blueprint(plan::any_site);
  plan::PlanRequest more = b.request;
  more.accelerators.front().budget += 8 * GiB;
  const auto plan = plan::make_plan(b.model.graph, b.machine, more);
  REQUIRE(plan.ok());
  const auto helps = advise(b);
  CHECK(told(helps, "8 GiB more VRAM") == doctest::Approx(plan->prediction.decode_tok_s));
  CHECK(told(helps, "16 GiB more RAM") == 0);  // there is enough
  for (size_t i = 1; i < helps.size(); ++i) CHECK(helps[i - 1].decode_tok_s >= helps[i].decode_tok_s);
}

TEST_CASE("advice: what was placed by hand stays where it is") {
  const Blueprint free = blueprint(plan::any_site), pinned = blueprint(plan::host_site);
  plan::PlanRequest more = pinned.request;
  more.accelerators.front().budget += 8 * GiB;
  const auto plan = plan::make_plan(pinned.model.graph, pinned.machine, more);
  REQUIRE(plan.ok());
  const auto helps = advise(pinned);
  // With FFNs on the CPU a larger card can hold all the rest, and no more than that comes of it.
  const double with_more_vram = told(helps, "8 GiB more VRAM"), of_free = told(advise(free), "8 GiB more VRAM");
  REQUIRE(of_free > 0);
  CHECK(with_more_vram < of_free);
  if (with_more_vram > 0) CHECK(with_more_vram == doctest::Approx(plan->prediction.decode_tok_s));
  // What helps is faster memory, by what the plan with these pins predicts.
  const double with_faster_ram = told(helps, "RAM twice as fast");
  CHECK(with_faster_ram > 1.03 * pinned.plan.prediction.decode_tok_s);
  CHECK(with_faster_ram < of_free);
}
