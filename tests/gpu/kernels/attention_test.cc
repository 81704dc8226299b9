#include "tests/gpu/kernels/attention_scene.h"

using namespace sluice;
using namespace sluice::gpu;
using namespace sluice::gpu::test;

namespace {

constexpr HeadsAndPages plain_shape{2, 3, 64, 16, KvType::f16, 0, 0};
constexpr HeadsAndPages common_shape{2, 4, 64, 64, KvType::f16, 0, 0};  // for which there is a kernel of its own

// One for which there is a kernel of its own.
HeadsAndPages served_shape(Random& random) {
  HeadsAndPages shape = random_shape(random);
  shape.type = KvType::f16;
  shape.page_tokens = 64;
  shape.head_dim = random.one_of({64u, 128u, 128u, 256u});
  return shape;
}

bool same_row(const std::vector<float>& one, const std::vector<float>& all, size_t token) {
  return std::memcmp(one.data(), &all[token * one.size()], one.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("gpu attention: double precision, over heads, widths, pages, windows, caps, trees and types") {
  Random random(20);
  for (int round = 0; round < 24; ++round) {
    const Scene scene = make_scene(random, random_shape(random), round % 4 == 0, 5, 150);
    check_against_reference(scene, attend(scene));
  }
}

TEST_CASE("gpu attention: f16 pages of 64 tokens, over heads, windows, caps and trees") {
  Random random(31);
  for (int round = 0; round < 18; ++round) {
    const Scene scene = make_scene(random, served_shape(random), round % 3 == 0, 5, 300);
    const std::vector<float> want = attend(scene);
    check_against_reference(scene, want);
    CHECK(same_bits(attend_in_parts(scene, 2), want));
    CHECK(same_bits(attend(scene, scene.least_scratch()), want));
    for (size_t t = 0; t < scene.tokens.size(); ++t) CHECK(same_row(attend(scene.part(t, 1)), want, t));
  }
}

TEST_CASE("gpu attention: the size of grids does not change the bits") {
  Random random(32);
  Scene scene{common_shape, {make_sequence(random, common_shape, 700)}, {{0, 699, 0}, {0, 650, 0}}, false, {}};
  scene.q = random.normals(scene.n_out());
  const std::vector<float> want = attend(scene);
  CHECK(same_bits(attend_on(1, scene), want));
}

TEST_CASE("gpu attention: cells of the batch are not copied before the kernels that write them have ended") {
  Random random(40);
  for (int round = 0; round < 8; ++round) {
    const HeadsAndPages shape = served_shape(random);
    const Scene scene = make_scene(random, shape, round % 2 == 0, 5, 200);
    WrittenJustBefore fresh;
    const uint64_t cell_bytes = uint64_t{shape.head_dim} * 2;
    for (const auto& s : scene.sequences)
      for (uint32_t cell = s->n_before; cell < s->k_pages.size() * shape.page_tokens; ++cell)
        for (uint32_t head = 0; head < shape.n_kv_heads; ++head)
          for (std::byte* page : {s->k_pages[cell / 64], s->v_pages[cell / 64]})
            fresh.add(page + (uint64_t{head} * 64 + cell % 64) * cell_bytes, cell_bytes);
    check_against_reference(scene, attend(scene));
  }
}

TEST_CASE("gpu attention: a prompt over more pages than are looked up at once, in large blocks and in small ones") {
  Random random(35);
  for (const uint32_t window : {0u, 1100u}) {
    HeadsAndPages shape = plain_shape;
    shape.window = window;
    Scene scene{shape, {make_sequence(random, shape, 1200), make_sequence(random, shape, 40)}, {}, false, {}};
    for (uint32_t t = 0; t < 60; ++t) scene.tokens.push_back({0, 1140 + t, 0});
    for (uint32_t t = 0; t < 9; ++t) scene.tokens.push_back({1, 31 + t, 0});
    scene.q = random.normals(scene.n_out());
    const std::vector<float> want = attend(scene);
    check_against_reference(scene, want);
    CHECK(same_bits(attend_on(1, scene), want));
    CHECK(same_bits(attend_in_parts(scene, 67), want));
  }
}

TEST_CASE("gpu attention and quantize: as one behind the other, in one go and in parts") {
  Random random(36);
  for (const HeadsAndPages shape : {common_shape, HeadsAndPages{2, 3, 32, 16, KvType::f32, 0, 0}}) {
    Scene scene{shape, {make_sequence(random, shape, 300), make_sequence(random, shape, 9)}, {}, false, {}};
    scene.tokens = {{0, 298, 0}, {0, 299, 0}, {1, 8, 0}};
    scene.q = random.normals(scene.n_out());
    const auto cols = static_cast<uint32_t>(scene.row()), rows = static_cast<uint32_t>(scene.tokens.size());
    const uint64_t q8 = rows * act_row_bytes(ActFormat::q8, cols);
    // One with too little memory for all tokens at once, or all pages.
    for (const uint64_t scratch : {uint64_t{1} << 20, 3 * scene.least_scratch()}) {
      const Context context(scratch);
      const DeviceArray<float> q(scene.q), state(scene.n_state());
      const Table<TokenSlot> tokens(scene.tokens);
      const Spans spans = scene.spans();
      const auto left_by = [&](bool together) {
        const DeviceArray<float> out(scene.n_out());
        DeviceArray<std::byte> rows_of_q8(q8);
        rows_of_q8.set(std::vector<std::byte>(q8, std::byte{7}));
        const std::array<KernelCall, 2> calls = {
            KernelCall(scene.call(q.data(), tokens.data(), spans, out.data())),
            KernelCall(QuantizeCall{out.data(), ActFormat::q8, rows, cols, rows_of_q8.data()})};
        REQUIRE(joins(std::span(calls).first(1), calls[1]));
        if (together) REQUIRE(run(stream(), calls, context.get()).ok());
        else
          for (const KernelCall& call : calls) run_call(call, context.get());
        finish();
        return std::pair(out.get(), rows_of_q8.get());
      };
      CHECK(left_by(true) == left_by(false));
      AttentionCall part = scene.call(q.data(), tokens.data(), spans, state.data());
      const QuantizeCall quantize{state.data(), ActFormat::q8, rows, cols, nullptr};
      const auto may_join = [&] { return joins(std::vector<KernelCall>{part}, quantize); };
      CHECK(may_join());
      part.finish = false;
      CHECK(!may_join());
      part.finish = part.prompt = true;
      CHECK(!may_join());
    }
  }
}

TEST_CASE("gpu attention: a graph that is replayed sees the tables as they are then") {
  Random random(34);
  Scene scene{common_shape, {make_sequence(random, common_shape, 200)}, {{0, 100, 0}, {0, 199, 0}}, false, {}};
  scene.q = random.normals(scene.n_out());
  const Context context(1 << 20);
  const DeviceArray<float> q(scene.q), out(scene.n_out());
  const Table<TokenSlot> tokens(scene.tokens);
  const Spans spans = scene.spans();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  REQUIRE(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  CHECK(run(stream(), scene.call(q.data(), tokens.data(), spans, out.data()), context.get()).ok());
  REQUIRE(cudaStreamEndCapture(stream(), &graph) == cudaSuccess);
  REQUIRE(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
  for (const uint32_t cell : {100u, 150u, 20u}) {
    scene.tokens[0].cell = tokens.data()[0].cell = cell;
    REQUIRE(cudaGraphLaunch(executable, stream()) == cudaSuccess);
    CHECK(same_bits(out.get(), attend(scene)));
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}

TEST_CASE("gpu attention: queries and keys of very different sizes") {
  Random random(33);
  Scene scene{common_shape, {make_sequence(random, common_shape, 100)}, {}, false, {}};
  for (uint32_t t = 0; t < 4; ++t) scene.tokens.push_back({0, 96 + t, 0});
  scene.q = random.normals(scene.n_out());
  const float sizes[] = {1e-30f, 1e-6f, 1.0f, 3e3f};
  for (size_t i = 0; i < scene.q.size(); ++i) scene.q[i] *= sizes[i / scene.row()];
  const std::vector<float> out = attend(scene);
  CHECK(std::all_of(out.begin(), out.end(), [](float x) { return std::isfinite(x); }));
  Scene tame = scene.part(0, 3);  // the largest scores decide everything, and are right to 2^-22 of themselves
  check_against_reference(tame, attend(tame));
}

TEST_CASE("gpu attention: all head sizes from 64 to 256 and both types, for decoding and for a prompt") {
  Random random(21);
  for (const uint32_t head_dim : {64u, 80u, 96u, 112u, 128u, 160u, 192u, 256u})
    for (const KvType type : {KvType::f16, KvType::f32}) {
      Scene scene{{1, 4, head_dim, 16, type, 0, 0},
                  {make_sequence(random, {1, 4, head_dim, 16, type, 0, 0}, 40)},
                  {},
                  false,
                  {}};
      scene.sequences[0]->n_before = 20;
      for (uint32_t t = 0; t < 20; ++t) scene.tokens.push_back({0, 20 + t, 0});
      scene.q = random.normals(scene.n_out());
      check_against_reference(scene, attend(scene));
      const Scene last = scene.part(19, 1);
      check_against_reference(last, attend(last));
    }
}

TEST_CASE("gpu attention: same bits for pages split over calls and for any scratch memory") {
  Random random(22);
  for (int round = 0; round < 10; ++round) {
    const Scene scene = make_scene(random, random_shape(random), round % 3 == 0, 5, 150);
    const std::vector<float> want = attend(scene);
    for (uint32_t pages = 1; pages <= 3; pages += 2) CHECK(same_bits(attend_in_parts(scene, pages), want));
    CHECK(same_bits(attend_in_parts(scene, 2, scene.least_scratch()), want));
    CHECK(same_bits(attend(scene, scene.least_scratch()), want));
    CHECK(same_bits(attend(scene, 3 * scene.least_scratch() + 4), want));
  }
}

TEST_CASE("gpu attention: a token's bits are the same alone and in a batch of several sequences") {
  Random random(23);
  for (int round = 0; round < 6; ++round) {
    const Scene scene = make_scene(random, random_shape(random), false, 5, 120);
    const std::vector<float> batch = attend(scene);
    for (size_t t = 0; t < scene.tokens.size(); ++t) CHECK(same_row(attend(scene.part(t, 1)), batch, t));
  }
}

TEST_CASE("gpu attention: prompts; over f32 pages each token has the bits that it has alone") {
  Random random(29);
  for (int round = 0; round < 8; ++round) {
    HeadsAndPages shape = random_shape(random);
    shape.n_kv_heads = random.pick(1, 2);
    shape.type = round % 2 == 0 ? KvType::f16 : KvType::f32;
    const Scene scene = make_scene(random, shape, false, 50, 120);
    const std::vector<float> batch = attend(scene);
    check_against_reference(scene, batch);
    CHECK(same_bits(attend_in_parts(scene, 2), batch));
    if (shape.type == KvType::f16) continue;
    for (size_t t = 0; t < scene.tokens.size(); t += 1 + t % 7) CHECK(same_row(attend(scene.part(t, 1)), batch, t));
  }
}

TEST_CASE("gpu attention: over f16 pages a prompt's token has the same bits in prompts of any length") {
  Random random(30);
  for (const uint32_t window : {0u, 25u}) {
    HeadsAndPages shape = plain_shape;
    shape.window = window;
    Scene scene{shape, {make_sequence(random, shape, 90), make_sequence(random, shape, 50)}, {}, false, {}};
    for (uint32_t t = 0; t < 45; ++t) scene.tokens.push_back({0, 45 + t, 0});
    for (uint32_t t = 0; t < 25; ++t) scene.tokens.push_back({1, 25 + t, 0});
    scene.q = random.normals(scene.n_out());
    const std::vector<float> all = attend(scene);
    check_against_reference(scene, all);
    for (const size_t first : {size_t{0}, size_t{3}, size_t{31}, size_t{50}}) {
      const std::vector<float> some = attend(scene.part(first, 20));
      CHECK(std::memcmp(some.data(), &all[first * scene.row()], some.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("gpu attention: pages that a window hides are not touched and do not matter") {
  Random random(24);
  for (HeadsAndPages shape : {plain_shape, common_shape}) {
    shape.window = 40;
    Scene scene{shape, {make_sequence(random, shape, 300)}, {{0, 299, 0}, {0, 298, 0}}, false, {}};
    scene.q = random.normals(scene.n_out());
    const std::vector<float> want = attend(scene);
    check_against_reference(scene, want);
    // Cell 259 is the first that is seen.
    for (size_t page = 0; page < 259 / shape.page_tokens; ++page)
      scene.sequences[0]->k_pages[page] = scene.sequences[0]->v_pages[page] = nullptr;
    CHECK(same_bits(attend(scene), want));
    CHECK(same_bits(attend_in_parts(scene, 3), want));
  }
}

TEST_CASE("gpu attention: a draft chain gives the bits of plain decoding, and siblings do not see each other") {
  Random random(25);
  for (const HeadsAndPages& shape : {plain_shape, common_shape}) {
    Scene plain{shape, {make_sequence(random, shape, 60)}, {}, false, {}};
    plain.sequences[0]->n_before = 50;
    for (uint32_t j = 0; j < 10; ++j) plain.tokens.push_back({0, 50 + j, 0});
    plain.q = random.normals(plain.n_out());
    Scene chain = plain;
    chain.tree = true;
    for (uint32_t j = 0; j < 10; ++j) chain.tokens[j].ancestors = (uint64_t{2} << j) - 1;
    CHECK(same_bits(attend(chain), attend(plain)));

    // Two drafts for the same place, the second one cell further on; what lies in the first is no number.
    Scene siblings = chain.part(1, 1);
    siblings.tokens[0].ancestors = 2;
    const std::vector<float> before = attend(siblings);
    check_against_reference(siblings, before);
    const size_t page_of_first = 50 / shape.page_tokens, cell = 50 % shape.page_tokens;
    for (auto* memory :
         {&siblings.sequences[0]->k_memory[page_of_first], &siblings.sequences[0]->v_memory[page_of_first]}) {
      std::vector<std::byte> page = memory->get();
      std::fill_n(page.begin() + static_cast<long>(cell * 64 * 2), 64 * 2, std::byte{0xff});
      memory->set(page);
    }
    CHECK(same_bits(attend(siblings), before));
  }
}

TEST_CASE("gpu attention: a tree of more tokens than decoding has") {
  Random random(26);
  const Scene scene = make_scene(random, plain_shape, true, 30, 60);
  check_against_reference(scene, attend(scene));
}

TEST_CASE("gpu attention: large scores neither overflow nor drown, NaN stays with its query") {
  Random random(27);
  HeadsAndPages shape = plain_shape;
  shape.type = KvType::f32;
  Scene scene{shape, {make_sequence(random, shape, 100)}, {{0, 99, 0}, {0, 98, 0}}, false, {}};
  scene.q = random.normals(scene.n_out(), 500);
  const std::vector<float> before = attend(scene);
  CHECK(std::all_of(before.begin(), before.end(), [](float x) { return std::isfinite(x); }));
  scene.q[0] = NAN;
  const std::vector<float> after = attend(scene);
  CHECK(std::all_of(after.begin(), after.begin() + 64, [](float x) { return std::isnan(x); }));
  CHECK(std::memcmp(&after[64], &before[64], (after.size() - 64) * sizeof(float)) == 0);
}

TEST_CASE("gpu attention: a query that sees nothing gives zeros, and calls that cannot be served are errors") {
  Random random(28);
  Scene scene{plain_shape, {make_sequence(random, plain_shape, 20)}, {{0, 19, 0}}, false, {}};
  scene.q = random.normals(scene.n_out());
  const Context context(1 << 16);
  const DeviceArray<float> q(scene.q), out(scene.n_out());
  const Table<TokenSlot> tokens(scene.tokens);
  const Spans none = scene.spans(2, 0), all = scene.spans();
  run_call(scene.call(q.data(), tokens.data(), none, out.data()), context.get());
  CHECK(out.get() == std::vector<float>(scene.n_out(), 0.0f));

  AttentionCall call = scene.call(q.data(), tokens.data(), all, out.data());
  CHECK(run(stream(), call, KernelContext{}).code() == Code::over_budget);
  call.head_dim = 1024;
  CHECK(run(stream(), call, context.get()).code() == Code::unsupported);
}
