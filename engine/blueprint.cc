// From what the user asked for to a plan.
#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "core/error.h"
#include "engine/machine/measure.h"
#include "engine/runtime.h"
#include "engine/system.h"
#include "engine/trace_file.h"

namespace sluice::engine {
namespace {

constexpr uint32_t default_context = 4096;

std::string temporary_directory() {
  const char* tmp = std::getenv("TMPDIR");
  return tmp != nullptr && *tmp != 0 ? tmp : "/tmp";
}

Status fill_in(EngineOptions& o, const Model& model) {
  if (o.context == 0) o.context = std::min(model.graph.context_length, default_context);
  if (o.context > model.graph.context_length && o.warn)
    o.warn(
        fmt::format("a context of {} tokens is more than the {} that the model was trained for; expect nonsense "
                    "beyond, or use -c {}",
                    o.context, model.graph.context_length, model.graph.context_length));
  if (o.sessions == 0 || o.logit_rows == 0)
    return error(Code::invalid_argument, "sessions and logit_rows are at least 1");
  if (o.ram == 0) o.ram = available_memory() / 10 * 8;  // the rest is for the page cache and the others
  if (o.spill_directory.empty()) o.spill_directory = temporary_directory();
  o.batch = std::min(o.batch, o.context);
  return {};
}

// What is held beside weights, KV and activations.
std::vector<plan::NamedBytes> fixed_memory(const EngineOptions& o, const Model& model) {
  const Graph& g = model.graph;
  std::vector<plan::NamedBytes> fixed = {{"model tables", model.memory_bytes()}};
  // Tiles of 256 KiB at least, and pages; a block costs the tables about 512 bytes.
  const uint64_t pages = 2ull * g.n_layers * o.sessions * div_up(o.context, 64);
  fixed.push_back({"block tables", (model.file_bytes / (256 * KiB) + 2 * g.tensors.size() + pages) * 512});
  fixed.push_back({"sampler", g.n_vocab * 16ull});
  if (!o.trace_file.empty()) fixed.push_back({"trace", trace_spans * sizeof(TraceSpan)});
  return fixed;
}

}  // namespace

Result<Blueprint> draw_up(const EngineOptions& options) {
  Blueprint b;
  b.options = options;
  SLUICE_ASSIGN_OR_RETURN(b.model, open_model(options.model));
  SLUICE_RETURN_IF_ERROR(fill_in(b.options, b.model));

  b.cpu.n_threads = options.threads;
  const Compute compute = options.precision == Precision::f32 ? Compute::f32 : Compute::fast;
  {
    SLUICE_ASSIGN_OR_RETURN(auto device, cpu::CpuDevice::create(b.cpu));
    b.cpu.n_threads = device->n_threads();
    const MachineRequest machine{
        options.machine_file, b.model.files.front(), options.load == Load::direct, &b.model.graph, compute,
        b.options.ram};
    SLUICE_ASSIGN_OR_RETURN(b.machine, this_machine(machine, *device));
  }
  plan::PlanRequest request;
  request.ram_budget = b.options.ram;
  request.fixed = fixed_memory(b.options, b.model);
  request.context = b.options.context;
  request.sequences = b.options.sessions;
  request.step_tokens = b.options.batch;
  request.logit_rows = b.options.logit_rows;
  std::error_code failed;
  const auto space = std::filesystem::space(b.options.spill_directory, failed);
  const bool unbounded = !failed && space.capacity == 0;  // ramfs, for one, has no size
  request.spill_limit = failed ? 0 : unbounded ? UINT64_MAX : space.available;
  request.compute = compute;
  SLUICE_ASSIGN_OR_RETURN(b.plan, plan::make_plan(b.model.graph, b.machine, request));
  return b;
}

}  // namespace sluice::engine
