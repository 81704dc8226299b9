// What `bench` measured, and how it is told.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "apps/options.h"
#include "sluice/report.h"

namespace sluice::apps {

// One way of bytes, such as from memory to the kernels: what it carried in the measured runs.
struct BenchPath {
  std::string name;  // "ram", "disk"
  uint64_t bytes = 0;
  double gb_s = 0;           // over all of the time, not only while it was busy
  double roofline_gb_s = 0;  // 0: not known
};

struct BenchResult {
  std::string model;
  uint32_t threads = 0, sequences = 1, depth = 0;
  uint32_t n_prompt = 0, n_generated = 0;  // one of them is 0
  std::vector<double> seconds;             // of each run
  std::vector<BenchPath> paths;
  PlanReport plan;
  MemoryReport memory;
  double load_s = 0;

  double tokens() const { return n_prompt > 0 ? n_prompt : double{1} * n_generated * sequences; }
};

// The bytes that went over each tier's path between two reports.
std::vector<BenchPath> paths_between(const std::vector<TierReport>& before, const std::vector<TierReport>& after,
                                     const std::vector<double>& seconds);

struct Spread {
  double mean = 0, deviation = 0, median = 0, least = 0, most = 0;
};
// The deviation is that of a sample (n - 1); 0 for one value. At least one value.
Spread spread_of(std::vector<double> values);

// Results as text, piece by piece in the order of printing.
class BenchWriter {
 public:
  explicit BenchWriter(BenchFormat format) : format_(format) {}
  std::string add(const BenchResult& result, const ModelReport& model);
  std::string end();

 private:
  BenchFormat format_;
  bool first_ = true;
};

}  // namespace sluice::apps
