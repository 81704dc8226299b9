// The best tokens of rows of logits.
//
// Bytes: the logits. Flops: a token takes part in some ten to fifty comparisons, fewer the fewer are wanted. Bound by
// latency: a part of the row is a block's, which sorts it in shared memory with a barrier between the steps, and the
// parts' best are one block's.
//
// Tokens are ordered by one number, the key: what is not finite first, then greater logits, of equal ones lower ids.
// Keys are sorted in runs of as many as are wanted, a power of two, by a bitonic network (Batcher 1968); of two runs
// the better half of both is a bitonic sequence again, which half a sort puts in order, until one run is left.
#include <algorithm>

#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 256, part = best_part_tokens;
constexpr uint64_t nobody = 0;  // no token has this key
constexpr uint32_t exponent = 0x7f800000u, sign = 0x80000000u;

SLUICE_DEVICE bool is_finite(float x) { return (__builtin_bit_cast(uint32_t, x) & exponent) != exponent; }

SLUICE_DEVICE uint64_t key_of(float logit, uint32_t id) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, logit + 0.0f);  // -0 becomes 0
  const uint32_t ordered = (bits & sign) != 0 ? ~bits : bits | sign;
  return uint64_t{is_finite(logit) ? ordered : ~0u} << 32 | ~id;
}

SLUICE_DEVICE TokenLogit token_of(uint64_t key, const float* logits) {
  if (key == nobody) return {__builtin_bit_cast(float, exponent | sign), -1};
  const uint32_t id = ~static_cast<uint32_t>(key), ordered = static_cast<uint32_t>(key >> 32);
  if (ordered == ~0u) return {logits[id], static_cast<int32_t>(id)};
  return {__builtin_bit_cast(float, (ordered & sign) != 0 ? ordered ^ sign : ~ordered), static_cast<int32_t>(id)};
}

SLUICE_DEVICE float penalized(float logit, float penalty) {
  constexpr float most = 3e38f;
  return fminf(fmaxf(logit > 0 ? logit / penalty : logit * penalty, -most), most);
}

// Keys of a run: 2^log_of_run, at least k.
SLUICE_DEVICE uint32_t log_of_run(uint32_t k) {
  uint32_t log = 0;
  while (1u << log < k) ++log;
  return log;
}

// The i-th of the pairs that lie `stride`, a power of two, apart: the place of its first.
SLUICE_DEVICE uint32_t first_of_pair(uint32_t i, uint32_t stride) { return 2 * i - (i & (stride - 1)); }

SLUICE_DEVICE void order(uint64_t* keys, uint32_t low, uint32_t high, bool greater_first) {
  const uint64_t a = keys[low], b = keys[high];
  if ((a < b) != greater_first) return;
  keys[low] = b;
  keys[high] = a;
}

// Sorts each run of the block's keys, the greatest first.
SLUICE_DEVICE void sort_runs(uint64_t* keys, uint32_t run) {
  for (uint32_t size = 2; size <= run; size *= 2)
    for (uint32_t stride = size / 2; stride > 0; stride /= 2) {
      for (uint32_t i = thread_x(); i < part / 2; i += threads) {
        const uint32_t low = first_of_pair(i, stride);
        order(keys, low, low + stride, size == run || (low & size) == 0);
      }
      block_barrier();
    }
}

// Of sorted runs, which fill the block's keys, leaves the best one at their begin.
SLUICE_DEVICE void merge_runs(uint64_t* keys, uint32_t log_run) {
  const uint32_t run = 1u << log_run;
  for (uint32_t apart = run; apart < part; apart *= 2) {  // the begins of runs that are left
    const uint32_t kept = part / (2 * apart) * run;
    const auto place = [=](uint32_t i) { return (i >> log_run) * 2 * apart + (i & (run - 1)); };
    for (uint32_t i = thread_x(); i < kept; i += threads) {
      const uint32_t at = place(i), other = at - (i & (run - 1)) + apart + run - 1 - (i & (run - 1));
      if (keys[other] > keys[at]) keys[at] = keys[other];
    }
    block_barrier();
    for (uint32_t stride = run / 2; stride > 0; stride /= 2) {
      for (uint32_t i = thread_x(); i < kept / 2; i += threads) {
        const uint32_t low = place(first_of_pair(i, stride));
        order(keys, low, low + stride, true);
      }
      block_barrier();
    }
  }
}

// Which of this thread's tokens of the part, each `threads` behind the last, are recent: a bit for each.
SLUICE_DEVICE uint32_t recent_tokens(const int32_t* recent, uint32_t n_recent, uint32_t begin) {
  uint32_t bits = 0;
  for (uint32_t first = 0; first < n_recent; first += 32) {
    const uint32_t i = first + lane();
    const uint32_t mine = i < n_recent ? static_cast<uint32_t>(recent[i]) - begin : part;
    if (!vote_any(mine < part)) continue;
    for (uint32_t source = 0; source < 32; ++source) {
      const uint32_t at = shuffle(mine, source);
      if (at < part && at % threads == thread_x()) bits |= 1u << (at / threads);
    }
  }
  return bits;
}

// A part of a row each: its best run into `best`, where the runs of a row lie one behind the other.
SLUICE_KERNEL void best_of_part_kernel(BestLogitsCall call, uint64_t* best) {
  SLUICE_SHARED(uint64_t, keys, [part]);
  const uint32_t row = block_y(), begin = block_x() * part;
  const BestLogitsRow asked = call.rows[row];
  const uint32_t recent = recent_tokens(call.recent + uint64_t{row} * most_recent, asked.n_recent, begin);
  const float* logits = call.logits + uint64_t{row} * call.n_vocab;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < part / threads; ++i) {
    const uint32_t at = i * threads + thread_x(), id = begin + at;
    float logit = id < call.n_vocab ? logits[id] : 0.0f;
    if ((recent >> i & 1) != 0 && is_finite(logit)) logit = penalized(logit, asked.penalty);
    keys[at] = id < call.n_vocab ? key_of(logit, id) : nobody;
  }
  block_barrier();
  const uint32_t log_run = log_of_run(asked.k), run = 1u << log_run;
  sort_runs(keys, run);
  merge_runs(keys, log_run);
  uint64_t* out = best + uint64_t{row} * grid_x() * most_best + block_x() * run;
  for (uint32_t i = thread_x(); i < run; i += threads) out[i] = keys[i];
}

// A row each: the best of its parts' runs.
SLUICE_KERNEL void best_of_row_kernel(BestLogitsCall call, const uint64_t* best, uint32_t n_parts) {
  SLUICE_SHARED(uint64_t, keys, [part]);
  const uint32_t row = block_x(), k = call.rows[row].k, log_run = log_of_run(k), run = 1u << log_run;
  const uint64_t* runs = best + uint64_t{row} * n_parts * most_best;
  const uint32_t total = n_parts * run;
  uint32_t kept = 0;
  for (uint32_t done = 0; done < total; done += part - kept, kept = run) {
    for (uint32_t i = kept + thread_x(); i < part; i += threads) {
      const uint32_t at = done + i - kept;
      keys[i] = at < total ? runs[at] : nobody;
    }
    block_barrier();
    merge_runs(keys, log_run);
  }
  const float* logits = call.logits + uint64_t{row} * call.n_vocab;
  TokenLogit* out = call.out + uint64_t{row} * most_best;
  for (uint32_t i = thread_x(); i < k; i += threads) out[i] = token_of(keys[i], logits);
}

// Rows [first, first + n) of the call.
BestLogitsCall some_rows(BestLogitsCall call, uint32_t first, uint32_t n) {
  call.logits += uint64_t{first} * call.n_vocab;
  call.rows += first;
  call.recent += uint64_t{first} * most_recent;
  call.out += uint64_t{first} * most_best;
  call.n_rows = n;
  return call;
}

}  // namespace

Status run(cudaStream_t stream, const BestLogitsCall& call, const KernelContext& context) {
  if (call.n_rows == 0 || call.n_vocab == 0) return {};
  const uint64_t rows = std::min<uint64_t>(call.n_rows, context.scratch_bytes / best_scratch_bytes(call.n_vocab));
  if (rows == 0)
    return Status(Code::over_budget, "gpu: the best of " + std::to_string(call.n_vocab) + " tokens need " +
                                         std::to_string(best_scratch_bytes(call.n_vocab)) + " bytes of scratch memory");
  auto* best = reinterpret_cast<uint64_t*>(context.scratch);
  const uint32_t n_parts = best_parts(call.n_vocab);
  for (uint32_t first = 0; first < call.n_rows; first += static_cast<uint32_t>(rows)) {
    const uint32_t n = std::min(call.n_rows - first, static_cast<uint32_t>(rows));
    const BestLogitsCall some = some_rows(call, first, n);
    const LaunchShape of_parts{.grid_x = n_parts, .grid_y = n, .block_x = threads};
    SLUICE_RETURN_IF_ERROR(
        launch(stream, launch_info("best_of_part", some), of_parts, best_of_part_kernel, some, best));
    const LaunchInfo info{"best_of_row", uint64_t{n} * n_parts * sizeof(uint64_t), 0};
    SLUICE_RETURN_IF_ERROR(
        launch(stream, info, {.grid_x = n, .block_x = threads}, best_of_row_kernel, some, best, n_parts));
  }
  return {};
}

}  // namespace sluice::gpu
