// What calls cost: each input once, each output once, counted by hand.
#include "core/kernel.h"

#include <doctest/doctest.h>

#include <array>

namespace sluice {
namespace {

TEST_CASE("cost: a product reads its weights and activations once and writes its output") {
  MatmulCall call{};
  call.dtype = DType::q4_0;
  call.rows = 10;
  call.cols = 64;
  call.n_tokens = 3;
  call.x_format = ActFormat::f32;
  CHECK(cost(call).bytes == 10 * 36 + 3 * 64 * 4 + 3 * 10 * 4);
  CHECK(cost(call).flops == 2 * 3 * 10 * 64);
  call.x_format = ActFormat::q8;  // a byte a value, and 12 bytes for each 32
  CHECK(cost(call).bytes == 10 * 36 + 3 * (64 + 24) + 3 * 10 * 4);
}

TEST_CASE("cost: sizes beyond 32 bits do not wrap") {
  MatmulCall call{};
  call.dtype = DType::f32;
  call.rows = 1u << 18;
  call.cols = 1u << 14;
  call.n_tokens = 1u << 13;
  CHECK(cost(call).bytes >= (uint64_t{1} << 34) + (uint64_t{1} << 29) + (uint64_t{1} << 33));
  CHECK(cost(call).flops == uint64_t{1} << 46);
  GatherRowsCall gather{};
  gather.dtype = DType::f32;
  gather.n_rows = 1u << 20;
  gather.cols = 1u << 14;
  CHECK(cost(gather).bytes == uint64_t{1} << 37);
  QuantizeCall quantize{};
  quantize.format = ActFormat::q8;
  quantize.n_rows = quantize.cols = 1u << 17;
  CHECK(cost(quantize).bytes == (uint64_t{1} << 34) * 5 + (uint64_t{1} << 34) / 32 * 12);
}

TEST_CASE("cost: attention counts the pages once for each sequence and the cells that each token sees") {
  std::array<KvSpan, 2> spans = {KvSpan{nullptr, nullptr, 0, 2, 5}, KvSpan{nullptr, nullptr, 1, 1, 6}};
  // Two tokens of the first sequence at cells 5 and 6 of pages of 4, one of the second at cell 6.
  std::array<TokenSlot, 3> tokens = {TokenSlot{0, 5, 0}, TokenSlot{0, 6, 0}, TokenSlot{1, 6, 0}};
  AttentionCall call{};
  call.tokens = tokens.data();
  call.spans = spans.data();
  call.n_tokens = 3;
  call.n_heads = 6;
  call.n_kv_heads = 2;
  call.head_dim = 8;
  call.page_tokens = 4;
  call.type = KvType::f16;
  const uint64_t page = 4 * 2 * 8 * 2;  // of one kind
  CHECK(cost(call).bytes == 2 * (2 + 1) * page + 2 * 4 * 3 * 6 * 8);
  CHECK(cost(call).flops == 4 * (6 + 7 + 3) * 6 * 8);  // the second sequence's span begins at cell 4
}

TEST_CASE("cost: what the smaller calls touch") {
  CHECK(cost(RmsNormCall{nullptr, nullptr, 0, 5, 7, nullptr}).bytes == (2 * 5 + 1) * 7 * 4);
  CHECK(cost(MergeStatesCall{nullptr, nullptr, 5, 7, nullptr}).bytes == 5 * (2 * (7 + 2) + 7) * 4);
  CHECK(cost(GatedActCall{nullptr, nullptr, Activation::silu, 5, 7, nullptr}).bytes == 3 * 5 * 7 * 4);
  CHECK(cost(CopyRowsCall{nullptr, nullptr, 5, 7, nullptr}).bytes == 2 * 5 * 7 * 4);
  CHECK(cost(CopyRowsCall{nullptr, nullptr, 5, 7, nullptr}).flops == 0);
  CHECK(cost(RouteCall{nullptr, 3, 8, 2, nullptr, nullptr}).bytes == 3 * (8 + 2 * 2) * 4);
  CHECK(cost(MergeCall{nullptr, nullptr, 3, 2, 16, false, nullptr}).bytes == 3 * (2 + 1) * 16 * 4);
  CHECK(cost(BestLogitsCall{nullptr, nullptr, nullptr, 3, 1000, nullptr}).bytes == 3 * 1000 * 4);
  KvAppendCall append{};
  append.n_tokens = 3;
  append.n_kv_heads = 2;
  append.head_dim = 8;
  append.type = KvType::f16;
  CHECK(cost(append).bytes == 2 * 3 * 2 * 8 * (4 + 2));
  append.type = KvType::f32;
  CHECK(cost(append).bytes == 2 * 3 * 2 * 8 * (4 + 4));
}

TEST_CASE("kernels: every call has a name of its own") {
  const KernelCall calls[] = {GatherRowsCall{}, RmsNormCall{},  QuantizeCall{},  MatmulCall{},     RopeTableCall{},
                              RopeCall{},       KvAppendCall{}, AttentionCall{}, GatedActCall{},   SoftcapCall{},
                              CopyRowsCall{},   RouteCall{},    MergeCall{},     BestLogitsCall{}, MergeStatesCall{}};
  static_assert(std::size(calls) == std::variant_size_v<KernelCall>);
  for (size_t a = 0; a < std::size(calls); ++a)
    for (size_t b = 0; b < a; ++b) CHECK(name(calls[a]) != name(calls[b]));
}

}  // namespace
}  // namespace sluice
