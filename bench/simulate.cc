// simulate: what plans give on the reference machine, in virtual time, beside what the machine allows.
//
//   simulate [--machine FILE] [--json]
//
// The planner, executor, weight streams, KV store and tier manager are the real ones; devices, link and disk only take
// their time (virtual_machine.h). `cost` is that of ideal.h.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "bench/ideal.h"
#include "bench/shape_graph.h"
#include "bench/simulation.h"
#include "core/bytes.h"
#include "core/trace.h"
#include "engine/gpus.h"
#include "engine/machine/machine_file.h"
#include "offload/plan/planner.h"

namespace sluice::bench {
namespace {

struct Work {
  uint32_t prompt = 0;  // tokens; 0: decode
  uint32_t depth = 256;
};
struct Case {
  const char* shape;
  double vram_gib, ram_gib;
  uint32_t context;
  std::vector<Work> works;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"70b", 24, 200, 8192, {{0, 256}, {64, 0}, {512, 0}, {2048, 0}}},
      {"70b", 8, 16, 4096, {{0, 256}}},
      {"8b", 4, 200, 3072, {{0, 256}, {2048, 0}}},
      {"8b", 8, 200, 131072 + 64, {{0, 131072}}},
  };
  return all;
}

struct Row {
  std::string model, machine, work, stall;
  uint32_t context = 0;
  double vram_gib = 0, ram_gib = 0, tok_s = 0, cost_tok_s = 0;
  double plan_ms = 0;  // on this machine, to make the plan
};

std::string text(const char* format, double value) {
  char out[64];
  std::snprintf(out, sizeof out, format, value);
  return out;
}

// Where the time goes that the machine would not need: what the devices wait for, then what they do beside kernels.
std::string stall_of(const Simulated& s) {
  const auto part = [&](double seconds) { return text("%.1f %%", 100 * seconds / s.seconds); };
  std::string out = "CPU busy " + part(s.cpu_s) + ", GPU " + part(s.gpu_s) + ", PCIe " + part(s.link_s);
  if (s.disk_s > 0) out += ", disk " + part(s.disk_s);
  out += "; devices wait for PCIe " + part(s.idle_link_s);
  if (s.disk_s > 0) out += ", for the disk " + part(s.idle_disk_s);
  return out + "; hand-overs " + part(s.hand_over_s);
}

class Bench {
 public:
  explicit Bench(Machine machine) : machine_(std::move(machine)) {}

  Status run(const Case& c) {
    const ModelShape shape = *shape_named(c.shape);
    const Graph graph = graph_of(shape);
    plan::PlanRequest request;
    EngineOptions options;
    options.vram = static_cast<uint64_t>(c.vram_gib * static_cast<double>(GiB));
    options.context = request.context = c.context;
    request.accelerators = engine::gpus_of(machine_, options, graph).accelerators;
    request.ram_budget = static_cast<uint64_t>(c.ram_gib * static_cast<double>(GiB));
    request.depth = c.works.front().depth > c.context / 2 ? c.works.front().depth : 0;
    const uint64_t start = now_ns();
    SLUICE_ASSIGN_OR_RETURN(const plan::Plan plan, plan::make_plan(graph, machine_, request));
    const double plan_ms = static_cast<double>(now_ns() - start) * 1e-6;
    SLUICE_ASSIGN_OR_RETURN(auto simulation, Simulation::create(graph, machine_, plan));
    for (const Work& work : c.works) {
      SLUICE_ASSIGN_OR_RETURN(const Simulated s,
                              work.prompt != 0 ? simulation->prompt(work.prompt) : simulation->decode(work.depth));
      add(c, shape, work, s, plan);
      rows_.back().plan_ms = plan_ms;
    }
    return {};
  }
  const std::vector<Row>& rows() const { return rows_; }

 private:
  void add(const Case& c, const ModelShape& shape, const Work& work, const Simulated& s, const plan::Plan& plan) {
    IdealCase ideal{static_cast<uint64_t>(c.vram_gib * static_cast<double>(GiB)) - context_bytes(plan),
                    static_cast<uint64_t>(c.ram_gib * static_cast<double>(GiB)), c.context, work.depth};
    const uint32_t n = work.prompt;
    Row row;
    row.model = shape.name + " Q4_K_M";
    row.machine = machine_.name;
    row.context = c.context;
    row.vram_gib = c.vram_gib, row.ram_gib = c.ram_gib;
    row.work = n != 0 ? "prefill " + std::to_string(n)
                      : "decode" + (work.depth > 1024 ? " at " + std::to_string(work.depth) : std::string());
    row.tok_s = (n != 0 ? n : 1) / s.seconds;
    row.cost_tok_s = n != 0 ? n / ideal_prompt_s(shape, machine_, ideal, n) : 1 / ideal_token_s(shape, machine_, ideal);
    row.stall = stall_of(s);
    rows_.push_back(row);
  }
  static uint64_t context_bytes(const plan::Plan& plan) {
    for (const plan::NamedBytes& item : plan.movement.sites.back().memory)
      if (item.name == "context") return item.bytes;
    return 0;
  }

  const Machine machine_;
  std::vector<Row> rows_;
};

std::string to_json(const std::vector<Row>& rows) {
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const Row& r : rows)
    out.push_back({{"model", r.model},
                   {"machine", r.machine},
                   {"vram_gib", r.vram_gib},
                   {"ram_gib", r.ram_gib},
                   {"work", r.work},
                   {"context", r.context},
                   {"tok_s", r.tok_s},
                   {"cost_tok_s", r.cost_tok_s},
                   {"stall", r.stall},
                   {"plan_ms", r.plan_ms}});
  return out.dump(1);
}

void print(const std::vector<Row>& rows) {
  std::printf("%-12s %5s %5s %7s %8s  %-16s %8s %8s %5s  %s\n", "model", "VRAM", "RAM", "context", "planned", "work",
              "tok/s", "cost", "of it", "where the time goes");
  for (const Row& r : rows)
    std::printf("%-12s %5.0f %5.0f %7u %5.0f ms  %-16s %8.4g %8.4g %4.0f%%  %s\n", r.model.c_str(), r.vram_gib,
                r.ram_gib, r.context, r.plan_ms, r.work.c_str(), r.tok_s, r.cost_tok_s, 100 * r.tok_s / r.cost_tok_s,
                r.stall.c_str());
}

// What the cases need of a machine; one that was measured may know no disk.
Status check(const Machine& m, const std::string& file) {
  const auto lacks = [&](const std::string& what) {
    return Status(Code::unsupported, file + ": a machine without " + what);
  };
  if (m.devices.size() < 2) return lacks("a GPU");
  if (m.tier("disk") == nullptr || m.tier("disk")->read_gb_s <= 0) return lacks("a disk");
  const std::string& gpu = m.devices[1].id;
  const auto has_link = [&](const std::string& from, const std::string& to) {
    return std::any_of(m.links.begin(), m.links.end(),
                       [&](const LinkRates& l) { return l.from == from && l.to == to && l.gb_s > 0; });
  };
  if (!has_link("host", gpu) || !has_link(gpu, "host")) return lacks("links between \"host\" and \"" + gpu + "\"");
  if (!m.devices[1].matmul_gflops.contains(DType::bf16)) return lacks("matmul_gflops of BF16 for \"" + gpu + "\"");
  return {};
}

int run(const std::string& file, bool json) {
  auto machine = engine::read_machine(file);
  Status status = machine.ok() ? check(*machine, file) : machine.status();
  std::vector<Row> rows;
  if (status.ok()) {
    Bench bench(std::move(*machine));
    for (const Case& c : cases())
      if (status.ok()) status = bench.run(c);
    rows = bench.rows();
  }
  if (!status.ok()) {
    std::fprintf(stderr, "simulate: %s\n", status.message().c_str());
    return 1;
  }
  if (json) std::printf("%s\n", to_json(rows).c_str());
  else print(rows);
  return 0;
}

}  // namespace
}  // namespace sluice::bench

int main(int argc, char** argv) {
  std::string machine = SLUICE_SOURCE_DIR "/machines/reference.json";
  bool json = false;
  CLI::App app("Carries plans out in virtual time on a machine that a file describes.", "simulate");
  app.add_option("--machine", machine, "The machine's file")->capture_default_str();
  app.add_flag("--json", json, "As JSON");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return sluice::bench::run(machine, json);
}
