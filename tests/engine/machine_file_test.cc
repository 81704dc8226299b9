// Machine files: what is written is read back; what people or accidents make of them is refused by field.
#include "engine/machine/machine_file.h"

#include <unistd.h>

#include <cstdio>

#include "tests/engine/engine_rig.h"

using namespace sluice;
using namespace sluice::engine;
using namespace sluice::test;
using nlohmann::json;

namespace {

// A file of its own, gone with the test.
class TemporaryFile {
 public:
  TemporaryFile() {
    const int fd = mkstemp(path_.data());
    REQUIRE(fd >= 0);
    ::close(fd);
  }
  ~TemporaryFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }
  const std::string& write(const std::string& text) const {
    std::ofstream(path_) << text;
    return path_;
  }

 private:
  std::string path_ = "/tmp/sluice-machine-XXXXXX";
};

Machine sample() {
  DeviceRates cpu;
  cpu.id = "cpu";
  cpu.detail = "2 threads";
  cpu.threads = 2;
  cpu.memory_gb_s = 30.5;
  cpu.call_us = 1.25;
  cpu.recorded_us = 0.75;
  cpu.many_tokens = 512;
  cpu.more_gflops = 350.5;
  cpu.matvec_gb_s = {{DType::q4_k, 20.5}, {DType::f32, 28}};
  cpu.matmul_gflops = {{DType::q4_k, 200}};
  cpu.matvec_f32_gb_s = {{DType::q6_k, 5}};
  cpu.matmul_f32_gflops = {{DType::bf16, 80}};
  cpu.products = {{DType::q6_k, Compute::f32, 8192, 2048, 64, 12.5, 700.25}};
  cpu.layers = {{Compute::fast, 2048, 32, 8, 64, 8192, 64, 10, 200, 3, 1.5, 0.25}};
  Machine machine;
  machine.name = "a name with \"quotes\"";
  machine.build = "1-2";
  machine.devices = {cpu};
  machine.tiers = {{"disk", 1ull << 40, 1.5, 0.5, 1.25, 0.75}, {"host", 0, 30, 0, 0, 1}};
  machine.links = {{"disk", "host", 1.5, 100}, {"host", "gpu 0", 25, 8, 20.5, 0.75}};
  return machine;
}

// The sample as JSON, to be changed.
json sample_json(const TemporaryFile& file) {
  REQUIRE(write_machine(sample(), file.path()).ok());
  return read_json(file.path());
}

}  // namespace

TEST_CASE("machine file: everything that is written is read back") {
  const TemporaryFile file;
  REQUIRE(write_machine(sample(), file.path()).ok());
  const Machine want = sample(), got = must(read_machine(file.path()));
  CHECK(got.name == want.name);
  CHECK(got.build == want.build);
  REQUIRE(got.devices.size() == 1);
  const DeviceRates &d = got.devices[0], &w = want.devices[0];
  CHECK(d.id == w.id);
  CHECK(d.many_tokens == w.many_tokens);
  CHECK(d.more_gflops == w.more_gflops);
  CHECK(d.detail == w.detail);
  CHECK(d.threads == w.threads);
  CHECK(d.memory_gb_s == w.memory_gb_s);
  CHECK(d.call_us == w.call_us);
  CHECK(d.recorded_us == w.recorded_us);
  CHECK(d.matvec_gb_s == w.matvec_gb_s);
  CHECK(d.matmul_gflops == w.matmul_gflops);
  CHECK(d.matvec_f32_gb_s == w.matvec_f32_gb_s);
  CHECK(d.matmul_f32_gflops == w.matmul_f32_gflops);
  REQUIRE(d.products.size() == 1);
  const ProductTimes &p = d.products[0], &wp = w.products[0];
  CHECK(std::tie(p.dtype, p.compute, p.rows, p.cols, p.tokens, p.one_us, p.many_us) ==
        std::tie(wp.dtype, wp.compute, wp.rows, wp.cols, wp.tokens, wp.one_us, wp.many_us));
  REQUIRE(d.layers.size() == 1);
  const LayerTimes &l = d.layers[0], &wl = w.layers[0];
  CHECK(std::tie(l.compute, l.hidden_size, l.n_heads, l.n_kv_heads, l.head_dim, l.ffn_size, l.tokens) ==
        std::tie(wl.compute, wl.hidden_size, wl.n_heads, wl.n_kv_heads, wl.head_dim, wl.ffn_size, wl.tokens));
  CHECK(std::tie(l.one_us, l.many_us, l.attention_us, l.cell_ns, l.pair_ns) ==
        std::tie(wl.one_us, wl.many_us, wl.attention_us, wl.cell_ns, wl.pair_ns));
  REQUIRE(got.tiers.size() == 2);
  const TierRates &t = got.tiers[0], &wt = want.tiers[0];
  CHECK(std::tie(t.id, t.capacity, t.read_gb_s, t.write_gb_s, t.read_beside_gb_s, t.compute_beside) ==
        std::tie(wt.id, wt.capacity, wt.read_gb_s, wt.write_gb_s, wt.read_beside_gb_s, wt.compute_beside));
  REQUIRE(got.links.size() == 2);
  for (size_t i = 0; i < got.links.size(); ++i) {
    const LinkRates &link = got.links[i], &wl2 = want.links[i];
    CHECK(std::tie(link.from, link.to, link.gb_s, link.latency_us, link.beside_gb_s, link.compute_beside) ==
          std::tie(wl2.from, wl2.to, wl2.gb_s, wl2.latency_us, wl2.beside_gb_s, wl2.compute_beside));
  }
}

TEST_CASE("machine file: what a file of an older version lacks has its default") {
  const Machine machine = must(read_machine(fixture("machine.json")));
  CHECK(machine.devices[0].products.empty());
  CHECK(machine.devices[0].layers.empty());
  CHECK(machine.tier("disk")->read_beside_gb_s == 0);
  CHECK(machine.tier("disk")->compute_beside == 1);
  for (const LinkRates& link : machine.links) CHECK(link.compute_beside == 1);
}

TEST_CASE("machine file: a file that is wrong is refused, naming file and field") {
  const TemporaryFile file;
  const json good = sample_json(file);
  const auto refused = [&](const char* where, const json& value, const char* field) {
    json bad = good;
    bad[json::json_pointer(where)] = value;
    CAPTURE(where);
    const auto read = read_machine(file.write(bad.dump()));
    CHECK(read.status().code() == Code::corrupt);
    CHECK(read.status().message().find(file.path()) != std::string::npos);
    CHECK(read.status().message().find(field) != std::string::npos);
  };
  refused("/devices", 7, "devices");
  refused("/devices", json::array(), "devices");
  refused("/tiers", json::object(), "tiers");
  refused("/devices/0/memory_gb_s", "fast", "memory_gb_s");
  refused("/devices/0/memory_gb_s", -1, "memory_gb_s");
  refused("/devices/0/memory_gb_s", 1e300, "memory_gb_s");
  refused("/devices/0/memory_gb_s", nullptr, "memory_gb_s");
  refused("/devices/0/threads", -1, "threads");
  refused("/devices/0/threads", 1ull << 33, "threads");
  refused("/devices/0/matvec_gb_s", json::array({1}), "matvec_gb_s");
  refused("/devices/0/matvec_gb_s", json{{"Q9_X", 1}}, "Q9_X");
  refused("/devices/0/matvec_gb_s/Q4_K", "x", "Q4_K");
  refused("/devices/0/products", "x", "products");
  refused("/devices/0/products/0/type", "Q9_X", "Q9_X");
  refused("/devices/0/products/0/compute", "slow", "compute");
  refused("/devices/0/products/0/rows", 0.5, "rows");
  refused("/devices/0/layers/0/pair_ns", -0.5, "pair_ns");
  refused("/tiers/0/read_gb_s", -2, "read_gb_s");
  refused("/tiers/0/compute_beside", "x", "compute_beside");
  refused("/links/1/beside_gb_s", -1, "beside_gb_s");
  refused("/links/1/compute_beside", "x", "compute_beside");
  for (const char* field : {"name", "devices", "tiers", "links"}) {
    json bad = good;
    bad.erase(field);
    CHECK(read_machine(file.write(bad.dump())).status().message().find(field) != std::string::npos);
  }
}

TEST_CASE("machine file: texts that are no JSON, and files that are not there") {
  const TemporaryFile file;
  const std::string text = sample_json(file).dump();
  for (size_t n = 0; n + 1 < text.size(); ++n)
    CHECK(read_machine(file.write(text.substr(0, n))).status().code() == Code::corrupt);
  CHECK(read_machine(file.write(std::string(100000, '['))).status().code() == Code::corrupt);
  CHECK(read_machine(file.write("[1]")).status().code() == Code::corrupt);
  CHECK(read_machine(file.write(std::string(17 << 20, ' '))).status().code() == Code::corrupt);
  CHECK(read_machine("/absent/machine.json").status().code() == Code::not_found);
  CHECK(read_machine("/tmp").status().code() == Code::not_found);
  CHECK(write_machine(sample(), "/absent/machine.json").code() == Code::io_error);
}
