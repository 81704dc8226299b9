#include "tests/cpu/best_logits_cases.h"
#include "tests/gpu/kernels/device_data.h"

using namespace sluice;
using namespace sluice::gpu;
using namespace sluice::gpu::test;
using namespace sluice::cpu::test;

namespace {

std::vector<TokenLogit> run_best(const BestCase& c, uint32_t rows_of_scratch = 1) {
  const DeviceArray<float> logits(c.logits);
  const Table<BestLogitsRow> rows(c.rows);
  const DeviceArray<int32_t> recent(c.recent);
  const DeviceArray<TokenLogit> out(std::vector<TokenLogit>(size_t{c.n_rows} * most_best, untouched));
  const Context context(rows_of_scratch * best_scratch_bytes(c.n_vocab));
  run_call(BestLogitsCall{logits.data(), rows.data(), recent.data(), c.n_rows, c.n_vocab, out.data()}, context.get());
  return out.get();
}

}  // namespace

TEST_CASE("gpu best_logits: as sorted plainly, however many rows go at once") {
  Random random(31);
  for (int round = 0; round < 40; ++round) {
    const uint32_t n_vocab = random.one_of({random.pick(1, 70), random.pick(1, 3000), 2048u, 2049u, 6000u});
    const BestCase c = random_best_case(random, random.one_of({1u, 1u, 2u, 5u}), n_vocab);
    check_best(c, run_best(c, random.pick(1, 6)));
  }
  const BestCase c = random_best_case(random, 16, 500);
  check_best(c, run_best(c, 16));
}

TEST_CASE("gpu best_logits: a vocabulary as models have it, and nothing asked of a row") {
  Random random(32);
  BestCase c = random_best_case(random, 3, 70001);
  c.rows[0].k = most_best;
  c.rows[1].k = 0;
  check_best(c, run_best(c, 2));
}

TEST_CASE("gpu best_logits: the first that is not finite comes first") {
  Random random(33);
  for (const uint32_t n_vocab : {2u, 200u, 2049u})
    check_broken(random, n_vocab, [](const BestCase& c) { return run_best(c, 3); });
}

TEST_CASE("gpu best_logits: without scratch memory it is an error that says how much is needed") {
  const BestLogitsCall call{nullptr, nullptr, nullptr, 1, 5000, nullptr};
  const Context context(best_scratch_bytes(5000) - 1);
  const Status status = run(stream(), call, context.get());
  CHECK(status.code() == Code::over_budget);
  CHECK(status.message().find(std::to_string(best_scratch_bytes(5000))) != std::string::npos);
}

TEST_CASE("gpu best_logits: a graph that is replayed asks for what is wanted then") {
  Random random(34);
  BestCase c = random_best_case(random, 2, 3000);
  c.rows = {{1, 0, 1.0f}, {40, 0, 1.0f}};
  const DeviceArray<float> logits(c.logits);
  const Table<BestLogitsRow> rows(c.rows);
  const Table<int32_t> recent(c.recent);
  DeviceArray<TokenLogit> out(size_t{2} * most_best);
  const Context context(2 * best_scratch_bytes(c.n_vocab));
  const BestLogitsCall call{logits.data(), rows.data(), recent.data(), 2, c.n_vocab, out.data()};
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  REQUIRE(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  CHECK(run(stream(), call, context.get()).ok());
  REQUIRE(cudaStreamEndCapture(stream(), &graph) == cudaSuccess);
  REQUIRE(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
  for (const uint32_t k : {1u, most_best, 7u}) {
    c.rows[0] = {k, 2, 3.0f};
    for (size_t i = 0; i < 2; ++i) c.recent[i] = best_of(c, 1)[i].id;
    std::copy(c.rows.begin(), c.rows.end(), rows.data());
    std::copy(c.recent.begin(), c.recent.end(), recent.data());
    out.set(std::vector<TokenLogit>(out.size(), untouched));
    REQUIRE(cudaGraphLaunch(executable, stream()) == cudaSuccess);
    check_best(c, out.get());
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}
