// What a profiler and a trace are told of steps: ranges that nest and end, whatever becomes of the step.
#include <string>
#include <thread>
#include <vector>

#include "tests/plan/rig.h"

namespace sluice::testing {
namespace {

// Writes down "name(" and ")".
class FakeRanges : public Ranges {
 public:
  void begin(const char* name) override {
    told += std::string(name) + "(";
    ++open;
    CHECK(std::this_thread::get_id() == thread);
  }
  void end() override {
    told += ")";
    --open;
    CHECK(open >= 0);
    CHECK(std::this_thread::get_id() == thread);
  }
  std::string told;
  int open = 0;
  const std::thread::id thread = std::this_thread::get_id();
};

TinyModel two_layers() {
  TinyOptions o;
  o.n_layers = 2;
  return make_tiny(o);
}

Batch batch_of(const PlanRig& rig, SequenceId sequence, size_t n, bool prompt) {
  Batch batch;
  rig.append(batch, sequence, random_tokens(40, 3), 0, n);
  batch.prompt = prompt;
  return batch;
}

constexpr const char* ops =
    "embed()attention_in 0()attention 0()attention_out 0()ffn 0()"
    "attention_in 1()attention 1()attention_out 1()ffn 1()head()";

}  // namespace

TEST_CASE("ranges: ops, by name and layer, within their step") {
  const TinyModel model = two_layers();
  FakeRanges ranges;
  PlanRigOptions o;
  o.ranges = &ranges;
  PlanRig rig(model, o);
  CHECK(ranges.told.empty());
  REQUIRE(rig.step(batch_of(rig, rig.sequence(), 20, true)).ok());
  CHECK(ranges.told == "prompt(" + std::string(ops) + ")");
  ranges.told.clear();
  REQUIRE(rig.step(batch_of(rig, rig.sequence(), 1, false)).ok());
  CHECK(ranges.told == "decode(" + std::string(ops) + ")");
}

TEST_CASE("ranges: they end when a step fails, is cancelled or is refused") {
  const TinyModel model = two_layers();
  FakeRanges ranges;
  PlanRigOptions o;
  o.ranges = &ranges;
  o.resident = 0;
  PlanRig rig(model, o);
  const SequenceId s = rig.sequence();

  rig.settle();
  rig.store.set_fault([](uint64_t, const IoRequest& r) { return r.op == IoRequest::Op::read; });
  CHECK(rig.step(batch_of(rig, s, 3, false)).status().code() == Code::io_error);
  CHECK(ranges.told.starts_with("decode(embed("));
  CHECK(ranges.told.ends_with("))"));
  CHECK(ranges.open == 0);
  rig.store.set_fault(nullptr);

  ranges.told.clear();
  rig.executor->cancel();
  CHECK(rig.step(batch_of(rig, s, 3, false)).status().code() == Code::cancelled);
  CHECK(ranges.told == "decode()");

  ranges.told.clear();
  CHECK(!rig.step(Batch{}).ok());  // before there is a step
  CHECK(ranges.told.empty());

  REQUIRE(rig.step(batch_of(rig, s, 3, false)).ok());
  CHECK(ranges.told == "decode(" + std::string(ops) + ")");
}

TEST_CASE("a trace has each step as a whole, and its ops within it") {
  const TinyModel model = two_layers();
  Trace trace(100);
  PlanRigOptions o;
  o.trace = &trace;
  PlanRig rig(model, o);
  const SequenceId s = rig.sequence();
  REQUIRE(rig.step(batch_of(rig, s, 20, true)).ok());
  REQUIRE(rig.step(batch_of(rig, s, 2, false)).ok());
  REQUIRE(trace.size() == 22);
  for (const size_t last : {10, 21}) {
    CHECK(std::string(trace[last].lane) == "step");
    CHECK(std::string(trace[last].name) == (last == 10 ? "prompt" : "decode"));
    for (size_t i = last - 10; i < last; ++i) {
      CHECK(std::string(trace[i].lane) == "executor");
      CHECK(trace[i].start_ns >= trace[last].start_ns);
      CHECK(trace[i].end_ns <= trace[last].end_ns);
    }
  }
}

}  // namespace sluice::testing
