// A plan carried out in virtual time by the executor, weight streams, KV store and tier manager that hardware gets.
#pragma once

#include <memory>

#include "core/graph.h"
#include "core/machine.h"
#include "offload/plan/plan.h"
#include "sluice/status.h"

namespace sluice::bench {

// What came of the steps that were measured.
struct Simulated {
  double seconds = 0;                                   // of one decoded token, or of the prompt
  double cpu_s = 0, gpu_s = 0, link_s = 0, disk_s = 0;  // of it: busy
  double hand_over_s = 0;                               // of gpu_s: values between sites
  double idle_link_s = 0, idle_disk_s = 0,
         idle_s = 0;  // neither device computes: while the link runs, else the disk, else nothing
};

class Simulation {
 public:
  // A plan whose KV may go to disk is unsupported. All must outlive it.
  static Result<std::unique_ptr<Simulation>> create(const Graph& graph, const Machine& machine, const plan::Plan& plan);
  ~Simulation();

  // Decodes a few tokens behind `depth` others, the last ones measured; or a prompt of n tokens in an empty context,
  // behind the decoding of a token.
  Result<Simulated> decode(uint32_t depth);
  Result<Simulated> prompt(uint32_t n);

 private:
  struct Impl;
  explicit Simulation(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::bench
