// What doctor concludes from facts, and that measuring a model gives what the cost model asks for.
#include <algorithm>

#include "engine/doctor/facts.h"
#include "engine/machine/measure_disk.h"
#include "engine/machine/measure_model.h"
#include "tests/engine/engine_rig.h"

using namespace sluice;
using namespace sluice::engine;
using namespace sluice::test;

namespace {

HealthReport healthy() {
  HealthReport r;
  r.cpu.cores = 4;
  r.cpu.numa_nodes = 1;
  r.memory.transparent_huge_pages = "madvise";
  r.memory.memlock = UINT64_MAX;
  r.disk.io_uring = r.disk.direct = true;
  return r;
}

template <class Change>
Finding only_finding(Change change) {
  HealthReport r = healthy();
  change(r);
  const std::vector<Finding> found = findings(r);
  REQUIRE(found.size() == 1);
  return found[0];
}

std::unique_ptr<cpu::CpuDevice> one_thread() {
  cpu::CpuOptions options;
  options.n_threads = 1;
  return must(cpu::CpuDevice::create(options));
}

}  // namespace

TEST_CASE("doctor: nothing is found on a healthy machine, and each ailment has its remedy") {
  CHECK(findings(healthy()).empty());
  const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  CHECK(has(only_finding([](auto& r) { r.memory.memlock = 8 * MiB; }).remedy, "ulimit -l"));
  CHECK(has(only_finding([](auto& r) { r.memory.memlock = 8 * MiB; }).what, "8.0 MiB"));
  CHECK(has(only_finding([](auto& r) { r.memory.transparent_huge_pages = "never"; }).remedy, "madvise"));
  CHECK(has(only_finding([](auto& r) { r.cpu.quota = 1.5; }).what, "1.5 CPUs of 4"));
  CHECK(has(only_finding([](auto& r) { r.cpu.numa_nodes = 2; }).remedy, "numactl"));
  const auto no_uring = [](auto& r) {
    r.disk.io_uring = false;
    r.disk.why_not = "sysctl kernel.io_uring_disabled=0";
  };
  CHECK(has(only_finding(no_uring).remedy, "io_uring_disabled"));
  const auto no_direct = [](auto& r) {
    r.disk.direct = false;
    r.disk.why_not = "a local file system";
  };
  CHECK(has(only_finding(no_direct).remedy, "local file system"));
}

TEST_CASE("doctor: the chosen one of a list in brackets") {
  CHECK(chosen_word("always [madvise] never\n") == "madvise");
  CHECK(chosen_word("[always] madvise") == "always");
  CHECK(chosen_word("") == "");
  CHECK(chosen_word("] [x") == "");
}

TEST_CASE("doctor: how a file is read, and why not better") {
  const DiskHealth disk = must(disk_facts(fixture("llama_mha.gguf")));
  CHECK(disk.path == fixture("llama_mha.gguf"));
  CHECK(!disk.store.empty());
  CHECK((disk.io_uring && disk.direct) == disk.why_not.empty());
  CHECK(disk_facts("/absent.gguf").status().code() == Code::not_found);
}

TEST_CASE("measuring a model: each product and the layer once, with times above zero") {
  const auto device = one_thread();
  const Model model = must(open_model(fixture("llama_gqa_tied.gguf")));
  DeviceRates rates;
  CHECK(must(measure_model(model.graph, Compute::fast, 8 * MiB, *device, rates)));
  for (const Op& op : model.graph.ops)
    for (const TensorId id : matrices(op)) {
      const TensorSpec& t = model.graph.tensor(id);
      CAPTURE(t.name);
      CHECK(std::count_if(rates.products.begin(), rates.products.end(), [&](const ProductTimes& p) {
              return p.dtype == t.dtype && p.rows == t.rows && p.cols == t.cols && p.one_us > 0 && p.many_us > 0;
            }) == 1);
    }
  REQUIRE(rates.layers.size() == 1);
  const LayerTimes& layer = rates.layers[0];
  CHECK(layer.hidden_size == model.graph.hidden_size);
  CHECK(layer.one_us > 0);
  CHECK(layer.many_us > 0);  // how they compare is for a quiet machine to tell
  CHECK(layer.pair_ns > 0);

  const size_t n = rates.products.size();
  CHECK(!must(measure_model(model.graph, Compute::fast, 8 * MiB, *device, rates)));
  CHECK(rates.products.size() == n);
  CHECK(must(measure_model(model.graph, Compute::f32, 8 * MiB, *device, rates)));
  CHECK(rates.layers.size() == 2);
}

TEST_CASE("measuring a disk: rates above zero, alone and beside a device; errors name the file") {
  const auto device = one_thread();
  const std::string path = fixture("llama_mha.gguf");
  const TierRates tier = must(measure_tier("disk", path, storage::LoadMode::buffered, 0.02, *device, 40 * MiB));
  CHECK(tier.id == "disk");
  CHECK(tier.read_gb_s > 0);
  CHECK(tier.read_beside_gb_s > 0);
  CHECK(tier.compute_beside > 0);
  CHECK(tier.compute_beside <= 1);
  const auto absent = measure_tier("disk", "/absent.gguf", storage::LoadMode::buffered, 0.02, *device, 40 * MiB);
  CHECK(absent.status().code() == Code::not_found);
}
