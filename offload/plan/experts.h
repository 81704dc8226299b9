// Routed experts: what only the run can know is decided here, once the router has spoken.
//
// At an ExpertsOp the runner reads the chosen ids, asks the policy what to do with each expert that is
// needed (compute it where it lies, fetch it for this once, or fetch and keep it), carries that out, and
// merges the parts of each token in slot order. So the result does not depend on which device computed
// which part as long as both compute alike, and never on when anything arrived.
//
// A policy is a pure function: no clock, lock or I/O. Its choices are written to a log, and a log can be
// replayed in its place.
#pragma once

#include <deque>
#include <span>
#include <vector>

#include "core/device.h"
#include "offload/plan/weight_stream.h"

namespace sluice::plan {

enum class ExpertAction : uint8_t {
  compute_on_host,  // the host computes it from its own copy, read from disk if it must be
  fetch,            // to the accelerator, gone after this use
  fetch_and_keep,   // to the accelerator, and it stays there until it is evicted
};
std::string_view to_string(ExpertAction action);

struct ExpertNeed {
  uint32_t op = 0, expert = 0;
  uint32_t n_rows = 0;          // tokens that chose it
  bool on_accelerator = false;  // a copy is there or on its way
  bool on_host = false;
};

struct CachedExpert {
  uint32_t op = 0, expert = 0;
  uint64_t last_use = 0;  // decide point at which it was last needed
};

struct ExpertChoice {
  ExpertAction action = ExpertAction::compute_on_host;
  int32_t evict = -1;  // index into the cached experts: goes before this one is fetched
};

class ExpertPolicy {
 public:
  virtual ~ExpertPolicy() = default;
  // One choice for each need; `room` is how many more experts the accelerator can hold.
  virtual void decide(std::span<const ExpertNeed> needs, std::span<const CachedExpert> cached, uint32_t room,
                      std::span<ExpertChoice> choices) const = 0;
};

// Hits run where they are. A miss chosen by `fetch_rows` tokens or more is fetched and kept, evicting the
// least recently used, while at most half of the cache changes in one step; others are computed on the
// host. Without residency (deterministic), every expert is computed on the host.
class CachePolicy : public ExpertPolicy {
 public:
  explicit CachePolicy(uint32_t fetch_rows, bool deterministic = false)
      : fetch_rows_(fetch_rows), deterministic_(deterministic) {}
  void decide(std::span<const ExpertNeed> needs, std::span<const CachedExpert> cached, uint32_t room,
              std::span<ExpertChoice> choices) const override;

 private:
  uint32_t fetch_rows_;
  bool deterministic_;
};

struct LoggedDecision {
  uint32_t op = 0, expert = 0;
  ExpertChoice choice;
  bool operator==(const LoggedDecision& o) const {
    return op == o.op && expert == o.expert && choice.action == o.choice.action && choice.evict == o.choice.evict;
  }
};

// Threads: that of the executor.
class ExpertRunner {
 public:
  struct Options {
    const Graph* graph = nullptr;
    const Plan* plan = nullptr;
    tier::TierManager* tiers = nullptr;
    const WeightStream* weights = nullptr;  // for the ids of expert blocks
    Device* host = nullptr;
    Device* accelerator = nullptr;     // null: the host computes everything
    uint32_t accelerator_experts = 0;  // how many it can hold
    const ExpertPolicy* policy = nullptr;
  };
  explicit ExpertRunner(const Options& options) : opt_(options) {}
  ~ExpertRunner();

  struct Call {
    const ExpertsOp* op = nullptr;
    uint32_t index = 0;  // of the op in the graph
    uint32_t used = 0;   // experts for each token
    uint32_t n_tokens = 0;
  };
  // Reads ws.x, ws.expert_ids and ws.expert_weights, adds to ws.h.
  Status run(const Call& call, const Workspace& ws);

  // After a failed step: drains the accelerator's queue and clears its failure.
  void recover();

  const std::vector<LoggedDecision>& log() const { return log_; }
  void clear_log() { log_.clear(); }
  // Takes these decisions, in their order, instead of asking the policy.
  void replay(std::vector<LoggedDecision> decisions) { replay_.assign(decisions.begin(), decisions.end()); }

 private:
  struct Group {  // the rows of one expert, consecutive in expert_x and expert_out
    uint32_t expert = 0, first_row = 0, n_rows = 0;
  };
  void group_rows(const Call& call, const Workspace& ws);
  Status decide(const Call& call);
  Status compute(const Call& call, const Group& group, const ExpertChoice& choice, const Event& rows_ready,
                 const Workspace& ws);
  Status evict_cached(uint32_t index);
  Result<tier::Pin> obtain(BlockId block, TierId tier);
  BlockId block_of(uint32_t op, uint32_t expert) const;

  const Options opt_;
  uint64_t now_ = 0;
  std::vector<Group> groups_;
  std::vector<ExpertNeed> needs_;
  std::vector<ExpertChoice> choices_;
  std::vector<CachedExpert> cached_;
  std::vector<Event> parts_done_;
  std::vector<LoggedDecision> log_;
  std::deque<LoggedDecision> replay_;
};

}  // namespace sluice::plan
