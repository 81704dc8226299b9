// Random placements, splits, budgets, sequences, faults, damage and cancellations through the executor. Whatever
// happens, rows that come out have the right bits, a step that fails leaves its sequences as they were, and nothing is
// held at the end (the rig's destructor). SLUICE_STRESS_SECONDS says for how long (3 by default), SLUICE_STRESS_SEED
// where to begin.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <random>
#include <thread>

#include "tests/plan/rig.h"

namespace sluice::testing {
namespace {

using Clock = std::chrono::steady_clock;

uint64_t setting(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
}

constexpr uint32_t near_pages = 3;  // of plans that divide attention
constexpr size_t n_texts = 4, text_tokens = 96, shared_tokens = 40;

// Texts that begin alike, so that a fork may go on in another one, and the rows of each.
struct Texts {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<Floats>> rows;

  Texts(const TinyModel& model, const PlanRigOptions& shape) {
    PlanRig rig(model, shape);
    for (size_t t = 0; t < n_texts; ++t) {
      tokens.push_back(random_tokens(text_tokens, 1));
      const auto rest = random_tokens(text_tokens, 100 + t);
      std::copy(rest.begin() + shared_tokens, rest.end(), tokens[t].begin() + shared_tokens);
      const SequenceId s = rig.sequence();
      rows.push_back(rig.feed(s, tokens[t], 16));
      rig.kv->destroy(s);
    }
  }
};

struct Counts {
  uint64_t steps = 0, failed = 0, cancelled = 0, corrupt = 0, spilled = 0, refused = 0;
};

// One plan, and random work under it.
class Course {
 public:
  Course(const TinyModel& model, const PlanRigOptions& options, const Texts& texts, uint64_t seed, Counts& counts,
         std::optional<bool> all_prompts)
      : rig_(model, options), texts_(texts), all_prompts_(all_prompts), random_(seed), counts_(counts) {
    rig_.store.set_fault([this](uint64_t, const IoRequest& r) { return strikes(r); });
  }
  ~Course() {
    calm();
    for (const Held& h : held_) rig_.kv->destroy(h.id);
    rig_.store.set_fault(nullptr);
    counts_.spilled += rig_.tiers->stats(TierId{1}).bytes_out;
  }

  void act() {
    const uint32_t what = upto(20);
    if (held_.empty() || (what == 0 && held_.size() < rig_.options.sequences)) return begin();
    Held& h = held_[upto(held_.size())];
    if (what == 1 && held_.size() < rig_.options.sequences) return fork(h);
    if (what == 2) return end(h);
    if (what == 3) return cut(h);
    step();
  }

 private:
  struct Held {
    SequenceId id;
    size_t text = 0, length = 0;
  };

  uint32_t upto(size_t n) { return static_cast<uint32_t>(random_() % n); }

  // Called by the store's thread. A write that fails is not damaged as well: its slot stays in use.
  bool strikes(const IoRequest& r) {
    if (fail_after_.load() >= 0 && fail_after_.fetch_sub(1) == 0) return true;
    if (r.op == IoRequest::Op::write && damage_writes_.exchange(false)) r.slot[r.extent.bytes / 3] ^= std::byte{4};
    return false;
  }
  void calm() {
    fail_after_ = -1;
    if (rig_.up != nullptr) rig_.up->fail_copy(0);
    damage_writes_ = false;
  }

  void begin() { held_.push_back({rig_.sequence(), upto(n_texts), 0}); }
  void fork(const Held& h) {
    const auto forked = rig_.kv->fork(h.id);
    REQUIRE_MESSAGE(forked.ok(), forked.status().message());
    held_.push_back({*forked, h.length <= shared_tokens ? upto(n_texts) : h.text, h.length});
  }
  void end(Held& h) {
    rig_.kv->destroy(h.id);
    h = held_.back();
    held_.pop_back();
  }
  void cut(Held& h) {
    const size_t n = upto(h.length + 1);
    const Status status = rig_.kv->truncate(h.id, static_cast<uint32_t>(n));
    CHECK(rig_.length(h.id) == n);
    h.length = n;
    if (h.length <= shared_tokens) h.text = upto(n_texts);
    if (status.ok()) return;
    CHECK_MESSAGE(status.code() == Code::corrupt, status.message());
    ++counts_.corrupt;
    end(h);
  }

  // A batch of some of the sequences; under it perhaps a fault, damage or a cancellation.
  void step() {
    Batch batch;
    std::vector<std::pair<size_t, size_t>> parts;  // index in held_, tokens
    size_t room = rig_.options.step_tokens;
    for (size_t i = 0; i < held_.size(); ++i) {
      const Held& h = held_[i];
      const size_t left = std::min(room, text_tokens - h.length);
      if (left == 0 || upto(2) == 0) continue;
      const size_t n = 1 + upto(std::min<size_t>(left, upto(3) == 0 ? 16 : 3));
      rig_.append(batch, h.id, texts_.tokens[h.text], h.length, n);
      parts.emplace_back(i, n);
      room -= n;
    }
    if (parts.empty()) return;
    batch.prompt = all_prompts_.value_or(rig_.options.placed && upto(3) == 0);
    if (upto(4) == 0) fail_after_ = upto(30);
    if (rig_.up != nullptr && upto(4) == 0) rig_.up->fail_copy(1 + upto(12));
    if (upto(16) == 0) damage_writes_ = true;
    std::thread canceller;
    if (upto(8) == 0) {
      const auto wait = std::chrono::microseconds(upto(400));
      canceller = std::thread([this, wait] {
        std::this_thread::sleep_for(wait);
        rig_.executor->cancel();
      });
    }
    auto rows = rig_.step(batch);
    if (canceller.joinable()) canceller.join();
    calm();
    for (int again = 0; again < 3 && !rows.ok() && rows.status().code() != Code::corrupt; ++again) {
      count(rows.status());
      for (const auto& [i, n] : parts) CHECK(rig_.length(held_[i].id) == held_[i].length);
      rows = rig_.step(batch);
    }
    ++counts_.steps;
    rows.ok() ? check(parts, *rows) : give_up(parts, rows.status());
  }
  void count(const Status& status) {
    const Code c = status.code();
    // unavailable: a fork still holds its pin on the page whose read failed.
    const bool clean = c == Code::io_error || c == Code::cancelled || c == Code::over_budget || c == Code::unavailable;
    CHECK_MESSAGE(clean, status.message());
    ++(c == Code::cancelled ? counts_.cancelled : counts_.failed);
  }
  void check(const std::vector<std::pair<size_t, size_t>>& parts, const std::vector<Floats>& rows) {
    size_t row = 0;
    for (const auto& [i, n] : parts) {
      Held& h = held_[i];
      for (size_t k = 0; k < n; ++k, ++row)
        if (!same_bits({rows[row]}, {texts_.rows[h.text][h.length + k]})) FAIL("wrong bits at ", h.length + k);
      h.length += n;
      CHECK(rig_.length(h.id) == h.length);
    }
    CHECK(row == rows.size());
  }
  // A damaged page does not come back: which sequence has it is not said, so all of the batch go.
  void give_up(const std::vector<std::pair<size_t, size_t>>& parts, const Status& status) {
    CHECK_MESSAGE(status.code() == Code::corrupt, status.message());
    ++counts_.corrupt;
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
      CHECK(rig_.length(held_[part->first].id) == held_[part->first].length);
      end(held_[part->first]);
    }
  }

  PlanRig rig_;
  const Texts& texts_;
  const std::optional<bool> all_prompts_;  // or some of each
  std::mt19937_64 random_;
  Counts& counts_;
  std::vector<Held> held_;
  std::atomic<int64_t> fail_after_{-1};
  std::atomic<bool> damage_writes_{false};
};

// All attention at the accelerator, but for the pages that are far: another Numerics, and other bits where tokens are
// decoded. Prompts have those of attention at one place.
bool is_attention(size_t op) { return op % 4 == 2; }
void divide_attention(PlanRigOptions& o) {
  const auto placed = o.placed;
  o.placed = [placed](size_t op, bool prompt) { return is_attention(op) || (placed && placed(op, prompt)); };
  o.near_pages = near_pages;
}

PlanRigOptions random_options(std::mt19937_64& random) {
  PlanRigOptions o;
  o.sequences = 1 + random() % 4;
  o.step_tokens = o.logit_rows = 16;
  o.threads = 1 + random() % 3;
  o.resident = static_cast<double>(random() % 5) / 4;
  o.tile_bytes = 4096u << random() % 3;
  o.kv_groups = random() % 4;
  o.kv_kept = random() % 9;
  o.store.shuffle = random() % 2;
  o.store.seed = random();
  o.store.latency = std::chrono::microseconds(random() % 3 * 20);
  if (random() % 2 == 0) return o;
  const uint64_t seed = random();
  o.placed = [seed](size_t op, bool prompt) { return (std::mt19937_64(seed + 2 * op + prompt)() >> 20) % 2 == 0; };
  o.device_resident = static_cast<double>(random() % 5) / 4;
  if (random() % 2 == 0) o.small_step = 1 + random() % 8;
  if (random() % 3 == 0) divide_attention(o);
  if (random() % 2 == 0) return o;
  o.split = [seed](size_t op, bool prompt) {  // of 96 rows
    const uint64_t drawn = std::mt19937_64(seed - 2 * op - prompt)() >> 20;
    return drawn % 3 == 0 ? 0u : static_cast<uint32_t>(drawn % 96);
  };
  return o;
}

TEST_CASE("stress: random placements, budgets, sequences, faults, damage and cancellations") {
  TinyOptions tiny;
  tiny.n_layers = 2;
  tiny.gap = 5000;
  const TinyModel model = make_tiny(tiny);
  PlanRigOptions shape;
  shape.step_tokens = shape.logit_rows = 16;
  const Texts whole(model, shape);
  divide_attention(shape);
  const Texts divided(model, shape);
  for (size_t op = 0; op < model.graph.ops.size(); ++op)
    REQUIRE(is_attention(op) == std::holds_alternative<AttentionOp>(model.graph.ops[op]));
  const auto end = Clock::now() + std::chrono::seconds(setting("SLUICE_STRESS_SECONDS", 3));
  Counts counts;
  uint64_t seed = setting("SLUICE_STRESS_SEED", 1);
  for (; Clock::now() < end; ++seed) {
    INFO("SLUICE_STRESS_SEED=", seed);
    std::mt19937_64 random(seed);
    const PlanRigOptions options = random_options(random);
    std::optional<bool> prompts;
    if (options.near_pages == near_pages) prompts = random() % 2 == 0;
    Course course(model, options, prompts.value_or(true) ? whole : divided, seed, counts, prompts);
    for (int i = 0; i < 150 && Clock::now() < end; ++i) course.act();
  }
  MESSAGE(seed << " plans, " << counts.steps << " steps, " << counts.failed << " failed, " << counts.cancelled
               << " cancelled, " << counts.corrupt << " damaged, " << counts.spilled << " bytes spilled");
  CHECK(counts.steps > 0);
}

}  // namespace
}  // namespace sluice::testing
