// Executor: the single loop that turns a Batch into kernels, transfers and decide points. It holds no
// policy: what stays, what streams and how far ahead is in the Plan; what happens to routed experts is
// asked of an ExpertPolicy.
//
// A step enqueues all of its work on the queues of the sites and runs ahead of it, bounded by memory: where a
// slot is not free yet it waits for the Event that frees it. At the end it waits once. A step that fails
// or is cancelled leaves the sequences as they were before it.
//
// Values go from op to op: the residual stream, queries, keys and values, what was attended to. Each is at the
// site that computed it; where the next op that reads it is at another one, it is handed over: the accelerator
// of the two reads it from, or writes it to, the host's memory by a kernel on its own queue. An FFN that is split has
// the residual stream at both of its sites, whose queues then run at once, and what one made of its rows is handed
// over to the other. So is what the host found, when decoding, in pages of an accelerator's layer that lie
// with it (Numerics::near_pages).
//
// Threads: step() by one thread at a time; cancel() by any.
#pragma once

#include <atomic>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>

#include "core/batch.h"
#include "core/device.h"
#include "core/ranges.h"
#include "core/store.h"
#include "core/trace.h"
#include "offload/plan/experts.h"
#include "offload/plan/kv_store.h"
#include "offload/plan/weight_stream.h"

namespace sluice::plan {

struct StepResult {
  // Rows in the order of the tokens that wanted logits: n_vocab logits each, or most_best places for the best tokens,
  // whichever was asked for (core/batch.h); the other one holds nothing.
  const float* logits = nullptr;
  const TokenLogit* best = nullptr;
  uint32_t n_rows = 0;
  const float* taps = nullptr;  // tap_layers x n_rows x hidden
};

class Executor {
 public:
  struct SiteParts {
    Device* device = nullptr;
    WeightStream* weights = nullptr;
    std::byte* workspace = nullptr;  // workspace_bytes() in the site's memory; the host's is reached by all sites
    CopyQueue* copies = nullptr;     // from the host's memory to the site's; null for the host
  };
  // All but `trace`, `ranges` and `experts` must be given, and everything must outlive the executor.
  struct Parts {
    const Graph* graph = nullptr;
    const Plan* plan = nullptr;
    Store* store = nullptr;
    KvStore* kv = nullptr;
    std::vector<SiteParts> sites;  // as in the plan
    // table_bytes() of host memory that all sites reach; the KV store has its pointer tables there (StepTables::pages).
    std::byte* tables = nullptr;
    ExpertRunner* experts = nullptr;  // for graphs that route
    Trace* trace = nullptr;
    Ranges* ranges = nullptr;  // of a profiler: steps, and in them ops
  };
  explicit Executor(const Parts& parts);

  // Results point into the workspace and hold until the next step.
  Result<StepResult> step(const Batch& batch);

  // Makes the running step, or the next one, end with `cancelled`.
  void cancel() { cancelled_.store(true, std::memory_order_relaxed); }

 private:
  struct StepSequence {
    SequenceId id;
    uint32_t before = 0;  // tokens held
    uint32_t count = 0;   // tokens that this step brings
  };
  struct Site {
    Device* device = nullptr;
    WeightStream* weights = nullptr;
    CopyQueue* copies = nullptr;
    std::array<Workspace, 2> layouts;  // of steps that are not large, that are
    Workspace ws;                      // one of them
    const float* acts_of = nullptr;    // what ws.acts holds, as acts_format
    ActFormat acts_format = ActFormat::f32;
    bool rope_made = false;  // in this step
    // What this step's kernels here read: as the host writes it, and where they find it.
    TokenTables written, seen;
    ptrdiff_t pages_by = 0;  // likewise, how far the pointer tables of pages are from where they are written
    Queue& queue() const { return device->queue(); }
  };
  // A value of the step, as the pointer to it in a Workspace.
  struct Value {
    float* Workspace::*at;
    uint32_t width = 0;    // of a row
    uint32_t present = 0;  // bit s: site s has it
  };
  // Pages of a layer and kind.
  struct Pages {
    uint32_t begin = 0, end = 0;
    bool empty() const { return begin >= end; }
  };
  // Far pages of one sequence that pass through an accelerator's memory at once.
  struct StagedGroup {
    uint32_t sequence = 0;
    Pages pages;
    uint32_t parity = 0;
    bool last = false;
  };
  enum ValueId : uint32_t { residual, queries, keys, values, attended, n_values };
  // Columns of each token's row of something in a Workspace, rows apart by `stride`.
  struct Columns {
    float* Workspace::*at;
    uint32_t first = 0, count = 0, stride = 0;
  };
  // Rows of a matrix, times activations that others may share.
  struct Product {
    TensorId weights;
    Rows rows;
    TensorId bias;
    float* out = nullptr;  // of the matrix's first row
    uint32_t out_stride = 0;
    bool accumulate = false;
  };
  // Tiles that are launched together, of one pass over the same activations.
  struct TileGroup {
    static constexpr uint32_t most = 8;
    std::array<const Tile*, most> tiles{};
    std::array<MatmulCall, most> calls;
    uint32_t n = 0;
  };

  Status check(const Batch& batch) const;
  Status check_best(const Batch& batch, size_t n_rows) const;
  Status begin(const Batch& batch);
  Status begin_passes(const Batch& batch);
  Status run(const Batch& batch);
  Status begin_and_run(const Batch& batch);
  Status finish(Status status);
  // write(tables) for those that the host writes: accelerators may have some of their own.
  template <class F>
  void for_tables(F write) const {
    write(tables_.all);
    if (mirrored_) write(tables_.few);
  }
  void fill_tables(const Batch& batch);
  void fill_row(const BatchToken& token, uint32_t index);
  bool can_mirror() const;
  bool recordable() const;
  uint32_t recorded_pages() const;
  uint64_t recording_key() const;
  void choose_tables();
  Status make_tables(const Placement& placement);
  void copy_tables(Site& site);
  Status replay(const Placement& placement);
  void fill_constants(const TokenTables& tables, uint32_t count) const;
  Status check_cancelled() const;
  Status walk(const Placement& placement);
  void launch(const KernelCall& call) { queue().launch(call); }
  void make_rope_tables();
  uint64_t rope_rows() const { return plan_.workspace_of(large_).tokens; }  // for which their tables have room
  void stay_awake(const Event& end) const;
  Status drain(Status status);
  void start_over();
  Status emit_op(uint32_t index);

  // Values
  void bring(std::initializer_list<ValueId> ids);
  void send(std::span<const Columns> list, uint32_t from, uint32_t to);
  void hand_over(std::span<const Columns> list, uint32_t from, uint32_t to, uint32_t first_token = 0);
  void made(ValueId value) { values_[value].present = 1u << site_; }
  Site& at() { return sites_[site_]; }
  Workspace& ws() { return at().ws; }
  Queue& queue() { return at().queue(); }

  Status emit(const EmbedOp& op);
  Status emit(const AttentionInOp& op);
  Status emit(const AttentionOp& op);
  Status emit(const AttentionOutOp& op);
  Status emit(const FfnOp& op);
  Status emit(const RouteOp& op);
  Status emit(const ExpertsOp& op);
  Status emit(const HeadOp& op);

  void norm(TensorId weight, float eps, const float* in, uint32_t n_rows, float* out);
  void add_normed(TensorId weight, float eps);
  void head_norm(TensorId weight, float eps, float* x, uint32_t n_heads);
  void rotate(const AttentionInOp& op, float* x, uint32_t n_heads);
  const std::byte* activations(const float* x, ActFormat format, uint32_t n_rows, uint32_t cols);
  Status product(TensorId weights, TensorId bias, const float* x, uint32_t n_rows, float* out, uint32_t out_stride,
                 bool accumulate);
  Status products(std::span<const Product> list, const float* x, uint32_t n_rows);
  uint64_t streamed_bytes(std::span<const Product> list);
  bool joins(const TileGroup& group, const Tile& tile);
  Status add_tile(const Product& product, const Tile& tile, Rows rows, const float* x, uint32_t n_rows,
                  TileGroup& group);
  Status launch_tiles(TileGroup& group);
  Status gated(const FfnOp& op);
  Status gated_at_both(const FfnOp& op, const Split& split);
  Status find_embedding_rows(TensorId id);
  bool far() const { return n_pages_ > plan_.numerics.near_pages; }
  bool is_far(uint32_t layer) const { return site_ != plan_.numerics.kv_site[layer]; }
  Pages pages_here(uint32_t layer) const;
  KvSpan span(SequenceId id, uint32_t layer, Pages pages);
  uint64_t spans_at(uint32_t layer, uint32_t parity) const;
  Status make_spans(uint32_t layer);
  void write_spans(uint32_t layer, uint32_t parity, Pages pages);
  Status run_ahead();
  bool appends_here(uint32_t layer) const;
  uint32_t first_token_of(uint32_t first_page) const;
  Status append_here(const AttentionOp& op, uint32_t first_token = 0);
  Status attend_here(const AttentionOp& op);
  Status attend_at_both(const AttentionOp& op);
  Status attend_to_staged(const AttentionOp& op);
  Status attend(const AttentionOp& op, Pages pages, uint32_t parity, bool start, bool finish);
  Status attend_staged(const AttentionOp& op, const StagedGroup& group, const Event& written);
  void settle(uint32_t layer);
  void launch_attention(const AttentionOp& op, uint32_t parity, bool start, bool finish);
  void tap(uint32_t layer);
  void give_out_logits();
  const float* vector(TensorId id);

  const Graph& g_;
  const Plan& plan_;
  Store& store_;
  KvStore& kv_;
  ExpertRunner* experts_;
  Trace* trace_;
  Ranges* ranges_;
  std::vector<std::string> op_names_;  // "attention_in 3"
  std::vector<Site> sites_;
  StepTables tables_;

  // Of the current step
  uint32_t op_ = 0, site_ = 0;
  uint32_t n_tokens_ = 0, n_logits_ = 0;
  uint32_t n_pages_ = 0;                           // of a layer and kind of the longest sequence
  bool wants_best_ = false, wants_whole_ = false;  // some of the rows of logits
  bool tree_ = false;
  bool large_ = false;       // Movement::is_large
  bool mirrored_ = false;    // all tables are made before the first kernel, and accelerators have copies of them
  bool recorded_ = false;    // the step is a recording, or is being recorded
  uint32_t most_pages_ = 0;  // of a step that is mirrored: that it, or its recording, has to serve
  const Batch* batch_ = nullptr;
  std::vector<StepSequence> sequences_;
  std::array<Value, n_values> values_;
  std::vector<Event> ready_;
  std::vector<IoRequest> requests_;
  std::vector<Event> request_events_;
  std::array<Event, 2> group_done_;
  std::atomic<bool> cancelled_{false};
};

}  // namespace sluice::plan
