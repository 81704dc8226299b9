// Engine::decode: several sessions in one step.
#include <vector>

#include "tests/engine/engine_rig.h"

using namespace sluice;
using namespace sluice::test;

namespace {

EngineOptions three_sessions() {
  EngineOptions options = options_for(fixture("llama_gqa_tied.gguf"), 64 * MiB);
  options.context = 64;
  options.sessions = 3;
  options.logit_rows = 3;
  return options;
}

using Logits = std::vector<std::vector<float>>;

Status decode(Engine& engine, const std::vector<Turn>& turns, Logits& logits) {
  logits.assign(turns.size(), {});
  return engine.decode(turns, [&](size_t i, std::span<const float> row) { logits[i].assign(row.begin(), row.end()); });
}

}  // namespace

TEST_CASE("decode: a session's logits are the same alone and in company") {
  const auto engine = open(three_sessions());
  const std::vector<std::vector<int32_t>> texts = {{1, 2, 3, 4}, {5}, {6, 7}};
  std::vector<std::unique_ptr<Session>> alone, together;
  std::vector<Turn> turns;
  Logits single, expected(3), got;
  for (size_t i = 0; i < 3; ++i) {
    auto session = must(engine->new_session());
    REQUIRE(session->append(texts[i]).ok());
    REQUIRE(decode(*engine, {{session.get(), 9}}, single).ok());
    expected[i] = single[0];
    CHECK(session->length() == texts[i].size() + 1);
  }
  for (size_t i = 0; i < 3; ++i) {
    together.push_back(must(engine->new_session()));
    REQUIRE(together[i]->append(texts[i]).ok());
    turns.push_back({together[i].get(), 9});
  }
  REQUIRE(decode(*engine, turns, got).ok());
  CHECK(got == expected);
  for (size_t i = 0; i < 3; ++i) CHECK(together[i]->length() == texts[i].size() + 1);
  REQUIRE(engine->decode(turns, {}).ok());  // nobody has to look
  CHECK(together[0]->length() == texts[0].size() + 2);
}

TEST_CASE("decode: what cannot be decoded leaves all sessions as they were") {
  EngineOptions options = three_sessions();
  options.logit_rows = 2;
  const auto engine = open(options), other = open(options);
  std::vector<std::unique_ptr<Session>> sessions;
  for (int i = 0; i < 3; ++i) sessions.push_back(must(engine->new_session()));
  const auto stranger = must(other->new_session());
  REQUIRE(sessions[2]->append(std::vector<int32_t>(64, 1)).ok());
  const auto refused = [&](const std::vector<Turn>& turns) {
    Logits logits;
    CHECK(decode(*engine, turns, logits).code() == Code::invalid_argument);
    for (const auto& row : logits) CHECK(row.empty());
    CHECK(sessions[0]->length() == 0);
    CHECK(sessions[1]->length() == 0);
    CHECK(sessions[2]->length() == 64);
  };
  refused({});
  refused({{nullptr, 1}});
  refused({{sessions[0].get(), 1}, {stranger.get(), 1}});
  refused({{sessions[0].get(), 1}, {sessions[0].get(), 2}});
  refused({{sessions[0].get(), 1}, {sessions[2].get(), 1}});  // full
  refused({{sessions[0].get(), 1}, {sessions[1].get(), static_cast<int32_t>(engine->n_vocab())}});
  refused({{sessions[0].get(), -1}});
  REQUIRE(sessions[2]->truncate(0).ok());
  Logits logits;
  CHECK(decode(*engine, {{sessions[0].get(), 1}, {sessions[1].get(), 1}, {sessions[2].get(), 1}}, logits).code() ==
        Code::invalid_argument);  // more rows than were planned
  CHECK(sessions[0]->length() == 0);
}
