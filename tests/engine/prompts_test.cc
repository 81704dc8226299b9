// How prompts are multiplied is part of a plan: its numerics, its memory, what it tells.
#include "engine/report.h"
#include "tests/engine/engine_rig.h"

using namespace sluice;
using namespace sluice::test;

namespace {

EngineOptions options_with(Prompts prompts) {
  EngineOptions options = options_for(fixture("llama_mha.gguf"), 64 * MiB);
  options.prompts = prompts;
  return options;
}

uint64_t given_to_products(const plan::Plan& plan) {
  for (const plan::NamedBytes& item : plan.host().memory)
    if (item.name == "prompt products") return item.bytes;
  return 0;
}

}  // namespace

TEST_CASE("prompts as bf16 are in the plan's numerics and memory, and what runs keeps to it") {
  const auto int8 = must(engine::draw_up(options_with(Prompts::int8)));
  CHECK(given_to_products(int8.plan) == 0);
  CHECK(engine::report_plan(int8).machine.prompts.empty());
  // Nothing of this model is quantized, so that nobody needs it who does not insist.
  CHECK(must(engine::draw_up(options_with(Prompts::automatic))).cpu_library.empty());
  auto bf16 = engine::draw_up(options_with(Prompts::bf16));
  if (!bf16.ok()) {
    CHECK(bf16.status().message().find("oneDNN") != std::string::npos);
    return;
  }
  CHECK(bf16->plan.numerics.hash() != int8.plan.numerics.hash());
  CHECK(given_to_products(bf16->plan) == cpu::DenseProduct::scratch_bytes(2));
  CHECK(engine::report_plan(*bf16).machine.prompts == bf16->cpu_library);
  const auto runtime = must(engine::Runtime::start(std::move(*bf16)));
  CHECK(runtime->device().library() == runtime->blueprint().cpu_library);
  CHECK(runtime->device().act_format(DType::q8_0, Compute::fast, true) == ActFormat::bf16);
}

TEST_CASE("prompts in blocks of 256, too, which every processor has") {
  const auto int8 = must(engine::draw_up(options_with(Prompts::int8)));
  auto wide8 = must(engine::draw_up(options_with(Prompts::wide8)));
  CHECK(wide8.cpu_library.starts_with("wide8 "));
  CHECK(wide8.plan.numerics.hash() != int8.plan.numerics.hash());
  CHECK(given_to_products(wide8.plan) == cpu::DenseProduct::scratch_bytes(2));
  const auto runtime = must(engine::Runtime::start(std::move(wide8)));
  CHECK(runtime->device().library() == runtime->blueprint().cpu_library);
  CHECK(runtime->device().act_format(DType::q4_k, Compute::fast, true) == ActFormat::wide8);
}

TEST_CASE("prompts in bf16 or by 256 where everything is to be F32 are refused") {
  EngineOptions options = options_with(Prompts::bf16);
  options.precision = Precision::f32;
  CHECK(Engine::open(options).status().code() == Code::invalid_argument);
  options.prompts = Prompts::wide8;
  CHECK(Engine::open(options).status().code() == Code::invalid_argument);
  options.prompts = Prompts::automatic;
  CHECK(Engine::open(options).ok());
  CHECK(must(engine::draw_up(options)).cpu_library.empty());
}
