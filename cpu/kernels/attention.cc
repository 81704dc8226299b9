#include "cpu/kernels/declare.h"
#include "cpu/kernels/vector.h"

namespace sluice::cpu::SLUICE_ISA {
namespace {

// Pages are taken in blocks of at most this many cells, a page of up to 128 tokens as one.
constexpr uint32_t block_cells = 128;
// Heads of one kv head that read a key or value together, and 16-lane columns of values at a time: as
// many as there are registers for. Neither shows in the result.
constexpr uint32_t max_rows = this_level == level::avx512 ? 4 : 1;
constexpr uint32_t value_columns = this_level == level::scalar ? 2 : 4;
constexpr uint32_t key_cells = 4;

// The cells of a block that a query sees, as indices within the page.
struct Cells {
  uint32_t n;
  uint32_t index[block_cells + key_cells];
};

// R query heads of one token that share a kv head, and their running results.
template <uint32_t R>
struct Rows {
  const float* q[R];
  float* o[R];
  float m[R], l[R];
  float shrink[R];  // what the results so far are multiplied with when the block is added
  alignas(64) float p[R][block_cells];
};

// Cells [begin, end) that a token may see, before its ancestors are looked at.
struct Visible {
  int64_t begin, end;
};

Visible visible_in_span(const AttentionCall& call, const TokenSlot& slot) {
  const KvSpan& span = call.spans[slot.seq];
  const int64_t own = slot.cell;
  Visible v{0, own + 1};
  if (call.window > 0 && v.end > call.window) v.begin = v.end - call.window;
  if (call.tree && int64_t{span.n_before} + 64 > v.end) v.end = int64_t{span.n_before} + 64;
  const int64_t first = int64_t{span.first_page} * call.page_tokens;
  const int64_t last = first + int64_t{span.n_pages} * call.page_tokens;
  if (v.begin < first) v.begin = first;
  if (v.end > last) v.end = last;
  if (v.end < v.begin) v.end = v.begin;
  return v;
}

// The visible cells of [begin, end), counted from `page_begin`; index is padded to whole key_cells.
void list_cells(const AttentionCall& call, const TokenSlot& slot, int64_t begin, int64_t end, int64_t page_begin,
                Cells& cells) {
  uint32_t n = 0;
  const int64_t before = call.tree ? call.spans[slot.seq].n_before : end;
  for (int64_t c = begin; c < end; ++c)
    if (c < before || (slot.ancestors >> (c - before) & 1) != 0)
      cells.index[n++] = static_cast<uint32_t>(c - page_begin);
  cells.n = n;
  for (uint32_t i = n; i % key_cells != 0; ++i) cells.index[i] = cells.index[n - 1];
}

template <uint32_t R, class T>
[[gnu::always_inline]] inline void score_cells(Rows<R>& rows, const T* keys, uint32_t head_dim, const Cells& cells,
                                               uint32_t at) {
  const T* k[key_cells];
  for (uint32_t c = 0; c < key_cells; ++c) k[c] = keys + uint64_t{cells.index[at + c]} * head_dim;
  Vec acc[R][key_cells] = {};
  uint32_t d = 0;
  for (; d + lanes <= head_dim; d += lanes) {
    Vec key[key_cells];
    for (uint32_t c = 0; c < key_cells; ++c) key[c] = load(k[c] + d);
    for (uint32_t r = 0; r < R; ++r) {
      const Vec q = load(rows.q[r] + d);
      for (uint32_t c = 0; c < key_cells; ++c) acc[r][c] += q * key[c];
    }
  }
  if (const uint32_t rest = head_dim - d; rest > 0)
    for (uint32_t r = 0; r < R; ++r)
      for (uint32_t c = 0; c < key_cells; ++c) acc[r][c] += load_part(rows.q[r] + d, rest) * load_part(k[c] + d, rest);
  for (uint32_t r = 0; r < R; ++r) {
    const Vec4 s = sum_4(acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
    std::memcpy(rows.p[r] + at, &s, sizeof s);
  }
}

// Scores in p become weights e^(s - m); m, l and shrink are brought up to date.
void weigh_cells(const AttentionCall& call, uint32_t n, float* p, float& m, float& l, float& shrink) {
  const uint32_t padded = (n + lanes - 1) / lanes * lanes;
  for (uint32_t i = n; i < padded; ++i) p[i] = 0.0f;
  for (uint32_t i = 0; i < padded; i += lanes) {
    Vec s = load(p + i) * call.scale;
    if (call.softcap > 0) s = call.softcap * tanh(s / call.softcap);
    store(p + i, s);
  }
  for (uint32_t i = n; i < padded; ++i) p[i] = -infinity;
  Vec most = -infinity;
  for (uint32_t i = 0; i < padded; i += lanes) {
    const Vec s = load(p + i);
    most = max(s, most);
  }
  const float block_m = maximum(most);
  const float new_m = block_m > m ? block_m : m;
  Vec total{};
  for (uint32_t i = 0; i < padded; i += lanes) {
    const Vec e = exp(load(p + i) - new_m);
    store(p + i, e);
    total += e;
  }
  shrink = exp(Vec(m - new_m)).p[0][0];
  l = l * shrink + sum(total);
  m = new_m;
}

// o = o * shrink + sum over cells of p * v, for C columns of 16 from d on; the sum of a block is made
// first and then added.
template <uint32_t R, uint32_t C, class T>
[[gnu::always_inline]] inline void add_values(Rows<R>& rows, const T* values, uint32_t head_dim, const Cells& cells,
                                              uint32_t d) {
  Vec acc[R][C] = {};
  for (uint32_t i = 0; i < cells.n; ++i) {
    const T* v = values + uint64_t{cells.index[i]} * head_dim + d;
    Vec value[C];
    for (uint32_t c = 0; c < C; ++c) value[c] = load(v + c * lanes);
    for (uint32_t r = 0; r < R; ++r)
      for (uint32_t c = 0; c < C; ++c) acc[r][c] += rows.p[r][i] * value[c];
  }
  for (uint32_t r = 0; r < R; ++r)
    for (uint32_t c = 0; c < C; ++c) {
      float* o = rows.o[r] + d + c * lanes;
      store(o, load(o) * rows.shrink[r] + acc[r][c]);
    }
}

// The last head_dim % 16 columns.
template <uint32_t R, class T>
void add_last_values(Rows<R>& rows, const T* values, uint32_t head_dim, const Cells& cells, uint32_t d) {
  const uint32_t rest = head_dim - d;
  for (uint32_t r = 0; r < R; ++r) {
    Vec acc{};
    for (uint32_t i = 0; i < cells.n; ++i)
      acc += rows.p[r][i] * load_part(values + uint64_t{cells.index[i]} * head_dim + d, rest);
    store_part(rows.o[r] + d, load_part(rows.o[r] + d, rest) * rows.shrink[r] + acc, rest);
  }
}

template <uint32_t R, class T>
void attend_block(const AttentionCall& call, Rows<R>& rows, const T* keys, const T* values, const Cells& cells) {
  for (uint32_t i = 0; i < cells.n; i += key_cells) score_cells<R>(rows, keys, call.head_dim, cells, i);
  for (uint32_t r = 0; r < R; ++r) weigh_cells(call, cells.n, rows.p[r], rows.m[r], rows.l[r], rows.shrink[r]);
  uint32_t d = 0;
  for (; d + value_columns * lanes <= call.head_dim; d += value_columns * lanes)
    add_values<R, value_columns>(rows, values, call.head_dim, cells, d);
  for (; d + lanes <= call.head_dim; d += lanes) add_values<R, 1>(rows, values, call.head_dim, cells, d);
  if (d < call.head_dim) add_last_values(rows, values, call.head_dim, cells, d);
}

template <uint32_t R, class T>
void attend_span(const AttentionCall& call, Rows<R>& rows, const TokenSlot& slot, uint32_t kv_head) {
  const KvSpan& span = call.spans[slot.seq];
  const Visible seen = visible_in_span(call, slot);
  const uint64_t head_offset = uint64_t{kv_head} * call.page_tokens * call.head_dim;
  Cells cells;
  for (int64_t at = seen.begin; at < seen.end;) {
    const int64_t page = at / call.page_tokens;
    const int64_t page_begin = page * call.page_tokens;
    int64_t end = page_begin + ((at - page_begin) / block_cells + 1) * block_cells;
    if (end > page_begin + call.page_tokens) end = page_begin + call.page_tokens;
    if (end > seen.end) end = seen.end;
    list_cells(call, slot, at, end, page_begin, cells);
    at = end;
    if (cells.n == 0) continue;
    const T* keys = reinterpret_cast<const T*>(span.k_pages[page - span.first_page]) + head_offset;
    const T* values = reinterpret_cast<const T*>(span.v_pages[page - span.first_page]) + head_offset;
    attend_block<R>(call, rows, keys, values, cells);
  }
}

float* state_of(const AttentionCall& call, uint64_t row) { return call.state + row * (uint64_t{call.head_dim} + 2); }

// Without a state the results grow in `out` itself.
template <uint32_t R>
void begin_rows(const AttentionCall& call, Rows<R>& rows, uint64_t row) {
  for (uint32_t r = 0; r < R; ++r) {
    float* state = call.state == nullptr ? nullptr : state_of(call, row + r);
    rows.q[r] = call.q + (row + r) * call.head_dim;
    rows.o[r] = state == nullptr ? call.out + (row + r) * call.head_dim : state + 2;
    rows.m[r] = call.start ? -infinity : state[0];
    rows.l[r] = call.start ? 0.0f : state[1];
    if (call.start) std::memset(rows.o[r], 0, call.head_dim * sizeof(float));
  }
}

// A query that saw nothing gives zeros.
template <uint32_t R>
void end_rows(const AttentionCall& call, Rows<R>& rows, uint64_t row) {
  for (uint32_t r = 0; r < R; ++r) {
    if (call.state != nullptr) {
      state_of(call, row + r)[0] = rows.m[r];
      state_of(call, row + r)[1] = rows.l[r];
    }
    if (!call.finish) continue;
    float* out = call.out + (row + r) * call.head_dim;
    const float l = rows.l[r] == 0.0f ? 1.0f : rows.l[r];
    for (uint32_t d = 0; d < call.head_dim; ++d) out[d] = rows.o[r][d] / l;
  }
}

template <uint32_t R, class T>
void attend_rows(const AttentionCall& call, uint32_t token, uint32_t head) {
  Rows<R> rows;
  const uint64_t row = uint64_t{token} * call.n_heads + head;
  begin_rows(call, rows, row);
  attend_span<R, T>(call, rows, call.tokens[token], head / (call.n_heads / call.n_kv_heads));
  end_rows(call, rows, row);
}

// Heads [head, head + n) of a token, all of one kv head.
template <uint32_t R, class T>
void attend(const AttentionCall& call, uint32_t token, uint32_t head, uint32_t n) {
  for (; n >= R; n -= R, head += R) attend_rows<R, T>(call, token, head);
  if constexpr (R > 1)
    if (n > 0) attend<R - 1, T>(call, token, head, n);
}

uint64_t work_of(const AttentionCall& call, uint32_t token) {
  const Visible seen = visible_in_span(call, call.tokens[token]);
  return static_cast<uint64_t>(seen.end - seen.begin) + 16;
}

// Walks over (kv head, token, head of the kv head) in this order and gives each share items of about
// the same total of cells; a kv head's pages stay in the cache while its tokens go by.
template <class T>
void attend_share(const AttentionCall& call, Share share) {
  const uint64_t group = call.n_heads / call.n_kv_heads;
  uint64_t total = 0;
  for (uint32_t t = 0; t < call.n_tokens; ++t) total += work_of(call, t) * call.n_heads;
  const uint64_t begin = total * share.index / share.count, end = total * (share.index + 1) / share.count;
  uint64_t at = 0;  // the work of the items before this one
  for (uint32_t kv = 0; kv < call.n_kv_heads && at < end; ++kv)
    for (uint32_t t = 0; t < call.n_tokens && at < end; ++t) {
      const uint64_t work = work_of(call, t);
      const uint64_t first = at >= begin ? 0 : (begin - at + work - 1) / work;
      const uint64_t last = (end - at + work - 1) / work;
      const uint64_t from = first < group ? first : group, to = last < group ? last : group;
      if (from < to)
        attend<max_rows, T>(call, t, static_cast<uint32_t>(kv * group + from), static_cast<uint32_t>(to - from));
      at += work * group;
    }
}

}  // namespace

void attention(const AttentionCall& call, Share share) {
  if (call.type == KvType::f16) attend_share<uint16_t>(call, share);
  else attend_share<float>(call, share);
}

}  // namespace sluice::cpu::SLUICE_ISA
