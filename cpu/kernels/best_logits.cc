// The best tokens of each row: one pass over its logits that looks closer only where one of a stretch is better than
// the worst of those kept. A thread has whole rows.
#include "cpu/kernels/declare.h"
#include "cpu/kernels/vector.h"

namespace sluice::cpu::SLUICE_ISA {
namespace {

constexpr uint32_t stretch = 4 * lanes;

// Greater for the better of two tokens.
[[gnu::always_inline]] inline uint64_t key_of(float logit, uint32_t id) {
  const uint32_t ordered = __builtin_bit_cast(uint32_t, logit + 0.0f);  // -0 becomes 0
  return uint64_t{ordered >> 31 ? ~ordered : ordered | 0x80000000u} << 32 | ~id;
}
[[gnu::always_inline]] inline TokenLogit token_of(uint64_t key) {
  const auto ordered = static_cast<uint32_t>(key >> 32);
  const uint32_t logit = ordered >> 31 ? ordered & 0x7fffffffu : ~ordered;
  return {__builtin_bit_cast(float, logit), static_cast<int32_t>(~static_cast<uint32_t>(key))};
}

// At most `most` keys, the best that were added. A heap: none is worse than its parent's, so the first is the worst.
class Kept {
 public:
  explicit Kept(uint32_t most) : most_(most) {}

  // The logit above which a token of a higher id than all that were added is one of the best.
  float bar() const { return n_ < most_ ? -infinity : token_of(keys_[0]).logit; }
  bool wants(uint64_t key) const { return n_ < most_ || key > keys_[0]; }
  bool has(uint64_t key) const {
    bool found = false;
    for (uint32_t i = 0; i < n_; ++i) found |= keys_[i] == key;
    return found;
  }

  void add(uint64_t key) {
    if (n_ == most_) return sink(key);
    uint32_t at = n_++;
    for (; at > 0 && keys_[(at - 1) / 2] > key; at = (at - 1) / 2) keys_[at] = keys_[(at - 1) / 2];
    keys_[at] = key;
  }

  // The tokens, best first; how many. None are kept afterwards.
  uint32_t give(TokenLogit* out) {
    const uint32_t n = n_;
    while (n_ > 0) {
      out[n_ - 1] = token_of(keys_[0]);
      const uint64_t last = keys_[--n_];
      if (n_ > 0) sink(last);
    }
    return n;
  }

 private:
  // Puts `key` in place of the worst.
  void sink(uint64_t key) {
    uint32_t at = 0;
    for (uint32_t child = 1; child < n_; child = 2 * at + 1) {
      if (child + 1 < n_ && keys_[child + 1] < keys_[child]) ++child;
      if (keys_[child] >= key) break;
      keys_[at] = keys_[child];
      at = child;
    }
    keys_[at] = key;
  }

  const uint32_t most_;
  uint32_t n_ = 0;
  uint64_t keys_[most_best];
};

struct Row {
  const float* logits;
  uint32_t n_vocab;
  const BestLogitsRow& asked;
  const int32_t* recent;

  bool is_recent(uint32_t id) const {
    bool found = false;
    for (uint32_t i = 0; i < asked.n_recent; ++i) found |= static_cast<uint32_t>(recent[i]) == id;
    return found;
  }
};

// Tokens [begin, end), but for recent ones.
void look_closer(const Row& row, uint32_t begin, uint32_t end, Kept& kept) {
  float bar = kept.bar();
  for (uint32_t id = begin; id < end; ++id) {
    if (!(row.logits[id] > bar) || row.is_recent(id)) continue;
    kept.add(key_of(row.logits[id], id));
    bar = kept.bar();
  }
}

// All but the recent tokens; false if a logit is not finite, recent or not.
bool scan(const Row& row, Kept& kept) {
  float bar = -infinity;
  Vec broken = 0.0f;  // x - x is NaN where x is not finite
  uint32_t id = 0;
  for (; id + stretch <= row.n_vocab; id += stretch) {
    Vec most = load(row.logits + id);
    broken += most - most;
    for (uint32_t i = lanes; i < stretch; i += lanes) {
      const Vec x = load(row.logits + id + i);
      broken += x - x;
      most = max(x, most);
    }
    if (!(maximum(most) > bar)) continue;
    look_closer(row, id, id + stretch, kept);
    bar = kept.bar();
  }
  look_closer(row, id, row.n_vocab, kept);
  float rest = 0;
  for (; id < row.n_vocab; ++id) rest += row.logits[id] - row.logits[id];
  return sum(broken) + rest == 0;
}

void add_recent(const Row& row, Kept& kept) {
  for (uint32_t i = 0; i < row.asked.n_recent; ++i) {
    const auto id = static_cast<uint32_t>(row.recent[i]);
    const uint64_t key = key_of(penalized_logit(row.logits[id], row.asked.penalty), id);
    if (kept.wants(key) && !kept.has(key)) kept.add(key);
  }
}

TokenLogit first_broken(const Row& row) {
  uint32_t id = 0;
  while (row.logits[id] - row.logits[id] == 0) ++id;
  return {row.logits[id], static_cast<int32_t>(id)};
}

void choose(const Row& row, TokenLogit* out) {
  Kept kept(row.asked.k);
  if (!scan(row, kept)) {
    out[0] = first_broken(row);
    return;
  }
  add_recent(row, kept);
  for (uint32_t i = kept.give(out); i < row.asked.k; ++i) out[i] = {-infinity, -1};
}

}  // namespace

void best_logits(const BestLogitsCall& call, Share share) {
  const Range range = range_of(call.n_rows, share);
  for (uint64_t r = range.begin; r < range.end; ++r) {
    const BestLogitsRow& asked = call.rows[r];
    if (asked.k > 0)
      choose({call.logits + r * call.n_vocab, call.n_vocab, asked, call.recent + r * most_recent},
             call.out + r * most_best);
  }
}

}  // namespace sluice::cpu::SLUICE_ISA
