// From what the user asked for to a plan.
#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "core/error.h"
#include "engine/gpus.h"
#include "engine/machine/machine_file.h"
#include "engine/machine/measure.h"
#include "engine/overrides.h"
#include "engine/runtime.h"
#include "engine/system.h"
#include "engine/trace_file.h"
#include "gpu/gpu.h"

namespace sluice::engine {
namespace {

constexpr uint32_t default_context = 4096;

// Whether prompts have products of quantized weights; logits are of few tokens.
bool multiplies_quantized(const Graph& g) {
  for (const Op& op : g.ops)
    if (!std::holds_alternative<HeadOp>(op))
      for (const TensorId id : matrices(op))
        if (info(g.tensor(id).dtype).block_elements > 1) return true;
  return false;
}

cpu::Prompts prompts_of(const EngineOptions& o, const Graph& g) {
  const bool of_use = o.precision == Precision::fast && multiplies_quantized(g);
  switch (o.prompts) {
    case Prompts::automatic: return of_use ? cpu::Prompts::automatic : cpu::Prompts::int8;
    case Prompts::int8: return cpu::Prompts::int8;
    case Prompts::bf16: return cpu::Prompts::bf16;
    case Prompts::wide8: return cpu::Prompts::wide8;
  }
  return cpu::Prompts::automatic;
}

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
  if ((o.prompts == Prompts::bf16 || o.prompts == Prompts::wide8) && o.precision == Precision::f32)
    return error(Code::invalid_argument, "prompts in {} and everything in F32 exclude one another",
                 o.prompts == Prompts::bf16 ? "bf16" : "wide8");
  if (o.sessions == 0 || o.logit_rows == 0)
    return error(Code::invalid_argument, "sessions and logit_rows are at least 1");
  if (o.ram == 0) o.ram = affordable_ram(available_memory());
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
  if (!o.trace_file.empty()) fixed.push_back({"trace", Trace::bytes_of(trace_spans)});
  return fixed;
}

// Where the CPU computes beside GPUs it leaves them cores. And its threads stay awake while a GPU has its layers: those
// take some hundred microseconds, and to be woken up one hundred more.
void take_turns_with_gpus(Blueprint& b) {
  if (b.gpus.empty()) return;
  if (b.options.threads == 0) b.cpu.n_threads = threads_beside_gpus(b.cpu.n_threads);
  const bool far = b.plan.numerics.has_far_pages();
  if (!plan::hand_overs(b.model.graph, b.plan.numerics.decode, far).empty()) b.cpu.patience_us = 2000;
}

// What else than our kernels computes at each site. Of a machine that a file describes it is not known.
void name_libraries(Blueprint& b, bool described) {
  if (described || (b.cpu_library.empty() && b.gpus.empty())) return;
  b.plan.numerics.libraries = {b.cpu_library};
  if (!b.gpus.empty()) b.plan.numerics.libraries.push_back(gpu::gpu_library(b.gpus.front()));
}

// Bytes of KV that may go to disk.
uint64_t spill_limit(const std::string& directory) {
  std::error_code failed;
  const auto space = std::filesystem::space(directory, failed);
  const bool unbounded = !failed && space.capacity == 0;  // ramfs, for one, has no size
  return failed ? 0 : unbounded ? UINT64_MAX : space.available;
}

plan::PlanRequest request_of(const EngineOptions& o, const Model& model, Compute compute) {
  plan::PlanRequest request;
  request.ram_budget = o.ram;
  request.fixed = fixed_memory(o, model);
  request.context = o.context;
  request.prompt = o.prompt;
  request.sequences = o.sessions;
  request.step_tokens = o.batch;
  request.logit_rows = o.logit_rows;
  request.spill_limit = spill_limit(o.spill_directory);
  request.compute = compute;
  return request;
}

// This machine: with what it measures, or measured before. The device that runs will multiply prompts as this one does.
Result<GpuChoice> look_at_this_machine(Blueprint& b, Compute compute) {
  SLUICE_ASSIGN_OR_RETURN(GpuChoice gpus, choose_gpus(b.options, b.model.graph));
  SLUICE_ASSIGN_OR_RETURN(auto device, cpu::CpuDevice::create(b.cpu));
  b.cpu.n_threads = device->n_threads();
  b.cpu_library = device->library();
  if (b.cpu_library.empty()) b.cpu.prompts = cpu::Prompts::int8;
  MachineRequest request;
  request.machine_file = b.options.machine_file;
  request.path = b.model.files.front();
  request.direct = b.options.load == Load::direct;
  request.graph = &b.model.graph;
  request.compute = compute;
  request.memory = b.options.ram;
  request.gpus = gpus.devices;
  SLUICE_ASSIGN_OR_RETURN(b.machine, this_machine(request, *device));
  return gpus;
}

// One that a file describes, as large as the file says.
Result<GpuChoice> look_at_described_machine(Blueprint& b, uint64_t asked_ram) {
  SLUICE_ASSIGN_OR_RETURN(b.machine, read_machine(b.options.machine_file));
  const TierRates* host = b.machine.tier("host");
  if (asked_ram == 0 && host != nullptr && host->capacity > 0) b.options.ram = host->capacity / 10 * 8;
  if (!b.machine.devices.empty()) b.cpu.n_threads = b.machine.devices.front().threads;
  return gpus_of(b.machine, b.options, b.model.graph);
}

// What was to be on a GPU needs one.
Status check_pins(const plan::PlanRequest& request, const std::string& no_gpu) {
  const auto on_gpu = [](uint8_t site) { return site != plan::any_site && site != plan::host_site; };
  if (!request.accelerators.empty() || std::none_of(request.pinned.begin(), request.pinned.end(), on_gpu)) return {};
  return error(Code::unavailable, "layers were asked to be on a GPU: {}", no_gpu.empty() ? "--vram is 0" : no_gpu);
}

}  // namespace

Result<Blueprint> draw_up(const EngineOptions& options, Purpose purpose) {
  Blueprint b;
  b.options = options;
  b.ram_automatic = options.ram == 0;
  SLUICE_ASSIGN_OR_RETURN(b.model, open_model(options.model));
  SLUICE_RETURN_IF_ERROR(fill_in(b.options, b.model));
  b.cpu.n_threads = options.threads;
  b.cpu.prompts = prompts_of(options, b.model.graph);
  const Compute compute = options.precision == Precision::f32 ? Compute::f32 : Compute::fast;
  const bool described = purpose == Purpose::plan && !options.machine_file.empty();
  SLUICE_ASSIGN_OR_RETURN(GpuChoice gpus,
                          described ? look_at_described_machine(b, options.ram) : look_at_this_machine(b, compute));
  plan::PlanRequest& request = b.request = request_of(b.options, b.model, compute);
  if (!b.cpu_library.empty())
    request.fixed.push_back({"prompt products", cpu::DenseProduct::scratch_bytes(b.cpu.n_threads)});
  request.accelerators = std::move(gpus.accelerators);
  SLUICE_ASSIGN_OR_RETURN(request.pinned, pinned_ops(options, b.model.graph));
  SLUICE_RETURN_IF_ERROR(check_pins(request, gpus.reason));
  SLUICE_ASSIGN_OR_RETURN(b.plan, plan::make_plan(b.model.graph, b.machine, request));
  b.no_gpu = gpus.reason;
  if (b.plan.numerics.sites.size() > 1) b.gpus = gpus.devices;
  name_libraries(b, described);
  take_turns_with_gpus(b);
  return b;
}

Result<std::unique_ptr<Runtime>> open_runtime(const EngineOptions& options) {
  EngineOptions o = options;
  for (int attempt = 1;; ++attempt) {
    SLUICE_ASSIGN_OR_RETURN(Blueprint blueprint, draw_up(o, Purpose::run));
    const bool with_gpu = !blueprint.gpus.empty() && options.vram == EngineOptions::automatic;
    auto runtime = Runtime::start(std::move(blueprint));
    const Code code = runtime.status().code();
    if (runtime.ok() || !with_gpu || (code != Code::over_budget && code != Code::unavailable)) return runtime;
    // Others may have taken memory since the plan was made: with what there is now, else without.
    if (attempt == 2) o.vram = 0;
    if (o.warn)
      o.warn(fmt::format("{}; {}", runtime.status().message(),
                         attempt == 1 ? "planning again" : "the CPU computes everything"));
  }
}

}  // namespace sluice::engine
