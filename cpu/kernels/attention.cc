#include "cpu/kernels/declare.h"
#include "cpu/kernels/vector.h"

namespace sluice::cpu::SLUICE_ISA {
namespace {

// Pages are taken in blocks of at most this many cells, a page of up to 128 tokens as one.
constexpr uint32_t block_cells = 128;
// Query rows of one kv head that read a key or value together, and 16-lane columns of values at a time: as
// many as there are registers for. Neither shows in the result.
constexpr uint32_t max_rows = this_level == level::avx512 ? 4 : 1;
constexpr uint32_t value_columns = this_level == level::scalar ? 2 : 4;
constexpr uint32_t key_cells = 4;

// The cells of a block that some query sees, as indices within the page, each at its place: the first one
// at its distance from the block's begin, then one after the other. Places [begin, end) are filled; those
// that round it to whole key_cells repeat a neighbour.
struct Cells {
  uint32_t begin, end;
  uint32_t index[block_cells + key_cells];
};

// R query rows (a token and a head) that share a kv head, and their running results.
template <uint32_t R>
struct Rows {
  const TokenSlot* slot[R];
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

// The cells of [begin, end) that `slot` sees; of a tree the ancestors alone, so that its cells have the
// places that they would have without the rest of the tree.
void list_cells(const AttentionCall& call, const TokenSlot& slot, int64_t begin, int64_t end, int64_t block_begin,
                int64_t page_begin, Cells& cells) {
  uint32_t n = cells.begin = static_cast<uint32_t>(begin - block_begin);
  const int64_t before = call.tree ? call.spans[slot.seq].n_before : end;
  for (int64_t c = begin; c < end; ++c)
    if (c < before || (slot.ancestors >> (c - before) & 1) != 0)
      cells.index[n++] = static_cast<uint32_t>(c - page_begin);
  cells.end = n;
  if (cells.begin == n) return;
  for (uint32_t i = cells.begin; i % key_cells != 0;) cells.index[--i] = cells.index[cells.begin];
  for (uint32_t i = n; i % key_cells != 0; ++i) cells.index[i] = cells.index[n - 1];
}

// A row that is used soon, into the second-level cache. Rows of a page follow one another, but those of values begin
// elsewhere, and so does the next page: a core would wait for each anew, and of its own reads has too few under way.
template <class T>
[[gnu::always_inline]] inline void prefetch_row(const T* row, uint32_t head_dim) {
  for (uint32_t d = 0; d < head_dim; d += 64 / sizeof(T)) __builtin_prefetch(row + d, 0, 2);
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
      for (uint32_t c = 0; c < key_cells; ++c) acc[r][c] = fma(q, key[c], acc[r][c]);
    }
  }
  if (const uint32_t rest = head_dim - d; rest > 0)
    for (uint32_t r = 0; r < R; ++r)
      for (uint32_t c = 0; c < key_cells; ++c)
        acc[r][c] = fma(load_part(rows.q[r] + d, rest), load_part(k[c] + d, rest), acc[r][c]);
  for (uint32_t r = 0; r < R; ++r) {
    const Vec4 s = sum_4(acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
    std::memcpy(rows.p[r] + at, &s, sizeof s);
  }
}

// Places of a block.
struct Places {
  uint32_t begin, end;
  bool empty() const { return begin >= end; }
  uint32_t first() const { return begin / lanes * lanes; }
  uint32_t last() const { return (end + lanes - 1) / lanes * lanes; }
};

[[gnu::always_inline]] inline void fill(float* p, uint32_t begin, uint32_t end, float value) {
  for (uint32_t i = begin; i < end; ++i) p[i] = value;
}

// Scales and caps the scores at the places seen and returns the largest; around them becomes -infinity.
[[gnu::always_inline]] inline float scale_scores(const AttentionCall& call, Places seen, float* p) {
  fill(p, seen.first(), seen.begin, 0.0f);
  fill(p, seen.end, seen.last(), 0.0f);
  for (uint32_t i = seen.first(); i < seen.last(); i += lanes) {
    Vec s = load(p + i) * call.scale;
    if (call.softcap > 0) s = call.softcap * tanh(s / call.softcap);
    store(p + i, s);
  }
  fill(p, seen.first(), seen.begin, -infinity);
  fill(p, seen.end, seen.last(), -infinity);
  Vec most = -infinity;
  for (uint32_t i = seen.first(); i < seen.last(); i += lanes) {
    const Vec s = load(p + i);
    most = max(s, most);
  }
  return maximum(most);
}

// Scores become e^(s - m); returns their sum.
[[gnu::always_inline]] inline float exp_scores(Places seen, float m, float* p) {
  Vec total{};
  for (uint32_t i = seen.first(); i < seen.last(); i += lanes) {
    const Vec e = exp(load(p + i) - m);
    store(p + i, e);
    total += e;
  }
  return sum(total);
}

// Scores become weights e^(s - m), and m, l and shrink are brought up to date. Of the places scored row r
// sees those in seen[r]; what it does not see weighs zero, so that the rows can add values together.
template <uint32_t R>
void weigh_rows(const AttentionCall& call, Rows<R>& rows, const Cells& cells, const Places* seen) {
  float new_m[R] = {};
  float change[lanes] = {};
  for (uint32_t r = 0; r < R; ++r) {
    if (seen[r].empty()) continue;
    const float most = scale_scores(call, seen[r], rows.p[r]);
    new_m[r] = most > rows.m[r] ? most : rows.m[r];
    change[r] = rows.m[r] - new_m[r];
  }
  store(change, exp(load(change)));
  for (uint32_t r = 0; r < R; ++r) {
    rows.shrink[r] = change[r];  // e^0 is 1
    Places weighed = seen[r];
    if (weighed.empty()) {
      weighed = {cells.begin, cells.begin};
    } else {
      rows.l[r] = rows.l[r] * rows.shrink[r] + exp_scores(weighed, new_m[r], rows.p[r]);
      rows.m[r] = new_m[r];
    }
    fill(rows.p[r], cells.begin, weighed.begin, 0.0f);
    fill(rows.p[r], weighed.end, cells.end, 0.0f);
  }
}

// o = o * shrink + sum over cells of p * v, for C columns of 16 from d on; the sum of a block is made
// first and then added.
template <uint32_t R, uint32_t C, class T>
[[gnu::always_inline]] inline void add_values(Rows<R>& rows, const T* values, uint32_t head_dim, const Cells& cells,
                                              uint32_t d) {
  Vec acc[R][C] = {};
  for (uint32_t i = cells.begin; i < cells.end; ++i) {
    const T* v = values + uint64_t{cells.index[i]} * head_dim + d;
    Vec value[C];
    for (uint32_t c = 0; c < C; ++c) value[c] = load(v + c * lanes);
    for (uint32_t r = 0; r < R; ++r)
      for (uint32_t c = 0; c < C; ++c) acc[r][c] = fma(rows.p[r][i], value[c], acc[r][c]);
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
    for (uint32_t i = cells.begin; i < cells.end; ++i)
      acc = fma(rows.p[r][i], load_part(values + uint64_t{cells.index[i]} * head_dim + d, rest), acc);
    store_part(rows.o[r] + d, load_part(rows.o[r] + d, rest) * rows.shrink[r] + acc, rest);
  }
}

template <uint32_t R, class T>
void add_all_values(Rows<R>& rows, const T* values, uint32_t head_dim, const Cells& cells) {
  uint32_t d = 0;
  for (; d + value_columns * lanes <= head_dim; d += value_columns * lanes)
    add_values<R, value_columns>(rows, values, head_dim, cells, d);
  for (; d + lanes <= head_dim; d += lanes) add_values<R, 1>(rows, values, head_dim, cells, d);
  if (d < head_dim) add_last_values(rows, values, head_dim, cells, d);
}

// Cells [begin, end) of one block, of which row r sees what it has in common with seen[r]. With a tree
// the rows are of one token.
template <uint32_t R, class T>
void attend_block(const AttentionCall& call, Rows<R>& rows, const Visible* seen, uint32_t kv_head, int64_t begin,
                  int64_t end, int64_t block_begin) {
  const KvSpan& span = call.spans[rows.slot[0]->seq];
  const int64_t page = begin / call.page_tokens;
  Cells cells;
  list_cells(call, *rows.slot[R - 1], begin, end, block_begin, page * call.page_tokens, cells);
  if (cells.begin == cells.end) return;
  const uint64_t head_offset = uint64_t{kv_head} * call.page_tokens * call.head_dim;
  const T* keys = reinterpret_cast<const T*>(span.k_pages[page - span.first_page]) + head_offset;
  const T* values = reinterpret_cast<const T*>(span.v_pages[page - span.first_page]) + head_offset;
  const bool last = page + 1 >= span.first_page + int64_t{span.n_pages};
  const T* next = reinterpret_cast<const T*>(span.k_pages[page - span.first_page + (last ? 0 : 1)]) + head_offset;
  for (uint32_t i = cells.begin / key_cells * key_cells; i < cells.end; i += key_cells) {
    for (uint32_t c = i; c < i + key_cells; ++c) {
      prefetch_row(values + uint64_t{cells.index[c]} * call.head_dim, call.head_dim);
      prefetch_row(next + uint64_t{cells.index[c]} * call.head_dim, call.head_dim);
    }
    score_cells<R>(rows, keys, call.head_dim, cells, i);
  }
  Places places[R];
  for (uint32_t r = 0; r < R; ++r) {
    const int64_t from = seen[r].begin > begin ? seen[r].begin : begin, to = seen[r].end < end ? seen[r].end : end;
    places[r] = {static_cast<uint32_t>(from - block_begin), static_cast<uint32_t>(to - block_begin)};
    if (from >= to) places[r] = {0, 0};
    else if (call.tree) places[r] = {cells.begin, cells.end};
  }
  weigh_rows(call, rows, cells, places);
  add_all_values(rows, values, call.head_dim, cells);
}

template <uint32_t R, class T>
void attend_span(const AttentionCall& call, Rows<R>& rows, uint32_t kv_head) {
  Visible seen[R];
  Visible all{INT64_MAX, 0};
  for (uint32_t r = 0; r < R; ++r) {
    seen[r] = visible_in_span(call, *rows.slot[r]);
    if (seen[r].begin >= seen[r].end) continue;
    if (seen[r].begin < all.begin) all.begin = seen[r].begin;
    if (seen[r].end > all.end) all.end = seen[r].end;
  }
  for (int64_t at = all.begin; at < all.end;) {
    const int64_t page_begin = at / call.page_tokens * call.page_tokens;
    const int64_t block_begin = page_begin + (at - page_begin) / block_cells * block_cells;
    int64_t end = block_begin + block_cells;
    if (end > page_begin + call.page_tokens) end = page_begin + call.page_tokens;
    if (end > all.end) end = all.end;
    attend_block<R, T>(call, rows, seen, kv_head, at, end, block_begin);
    at = end;
  }
}

float* state_of(const AttentionCall& call, uint64_t row) { return call.state + row * (uint64_t{call.head_dim} + 2); }

// Query rows that wait to be worked on together: indices token * n_heads + head of one kv head.
struct Pending {
  uint32_t n = 0;
  uint64_t row[max_rows];
};

// Without a state the results grow in `out` itself.
template <uint32_t R>
void begin_rows(const AttentionCall& call, Rows<R>& rows, const uint64_t* row) {
  for (uint32_t r = 0; r < R; ++r) {
    float* state = call.state == nullptr ? nullptr : state_of(call, row[r]);
    rows.slot[r] = &call.tokens[row[r] / call.n_heads];
    rows.q[r] = call.q + row[r] * call.head_dim;
    rows.o[r] = state == nullptr ? call.out + row[r] * call.head_dim : state + 2;
    rows.m[r] = call.start ? -infinity : state[0];
    rows.l[r] = call.start ? 0.0f : state[1];
    if (call.start) std::memset(rows.o[r], 0, call.head_dim * sizeof(float));
  }
}

// A query that saw nothing gives zeros.
template <uint32_t R>
void end_rows(const AttentionCall& call, Rows<R>& rows, const uint64_t* row) {
  for (uint32_t r = 0; r < R; ++r) {
    if (call.state != nullptr) {
      state_of(call, row[r])[0] = rows.m[r];
      state_of(call, row[r])[1] = rows.l[r];
    }
    if (!call.finish) continue;
    float* out = call.out + row[r] * call.head_dim;
    const float l = rows.l[r] == 0.0f ? 1.0f : rows.l[r];
    for (uint32_t d = 0; d < call.head_dim; ++d) out[d] = rows.o[r][d] / l;
  }
}

template <uint32_t R, class T>
void attend_rows(const AttentionCall& call, const uint64_t* row) {
  Rows<R> rows;
  begin_rows(call, rows, row);
  attend_span<R, T>(call, rows, static_cast<uint32_t>(row[0] % call.n_heads / (call.n_heads / call.n_kv_heads)));
  end_rows(call, rows, row);
}

template <class T, uint32_t R = max_rows>
void flush(const AttentionCall& call, Pending& pending) {
  if (pending.n == R) attend_rows<R, T>(call, pending.row);
  else if constexpr (R > 1) return flush<T, R - 1>(call, pending);
  pending.n = 0;
}

// Whether two rows may wait together: the same sequence, and with a tree the same token.
bool together(const AttentionCall& call, uint64_t a, uint64_t b) {
  const uint64_t t = a / call.n_heads, u = b / call.n_heads;
  return t == u || (!call.tree && call.tokens[t].seq == call.tokens[u].seq);
}

template <class T>
void add_row(const AttentionCall& call, Pending& pending, uint64_t row) {
  if (pending.n > 0 && !together(call, pending.row[0], row)) flush<T>(call, pending);
  pending.row[pending.n++] = row;
  if (pending.n == max_rows) flush<T>(call, pending);
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
  Pending pending;
  for (uint32_t kv = 0; kv < call.n_kv_heads && at < end; ++kv) {
    for (uint32_t t = 0; t < call.n_tokens && at < end; ++t) {
      const uint64_t work = work_of(call, t);
      const uint64_t first = at >= begin ? 0 : (begin - at + work - 1) / work;
      const uint64_t last = (end - at + work - 1) / work;
      for (uint64_t h = first; h < (last < group ? last : group); ++h)
        add_row<T>(call, pending, uint64_t{t} * call.n_heads + kv * group + h);
      at += work * group;
    }
    flush<T>(call, pending);
  }
}

}  // namespace

void attention(const AttentionCall& call, Share share) {
  if (call.type == KvType::f16) attend_share<uint16_t>(call, share);
  else attend_share<float>(call, share);
}

}  // namespace sluice::cpu::SLUICE_ISA
