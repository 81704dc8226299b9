// One step of several sessions together.
#include <algorithm>

#include "core/error.h"
#include "engine/session.h"

namespace sluice::engine {

Status SessionImpl::decode(Runtime& runtime, std::span<const Turn> turns,
                           const std::function<void(size_t, std::span<const float>)>& on_logits) {
  runtime.adapt();
  std::lock_guard lock(runtime.mutex());
  Batch batch;
  std::vector<SessionImpl*> sessions;
  for (const Turn& turn : turns) {
    auto* session = dynamic_cast<SessionImpl*>(turn.session);
    if (session == nullptr || &session->runtime_ != &runtime)
      return error(Code::invalid_argument, "turn {} is of no session of this engine", sessions.size());
    if (std::find(sessions.begin(), sessions.end(), session) != sessions.end())
      return error(Code::invalid_argument, "turn {} is of a session that stands in the batch already", sessions.size());
    SLUICE_RETURN_IF_ERROR(session->check_room(1));
    const auto position = static_cast<int32_t>(session->tokens_.size());
    batch.tokens.push_back({turn.token, position, session->sequence_, 0, true});
    sessions.push_back(session);
  }
  SLUICE_ASSIGN_OR_RETURN(const plan::StepResult result, runtime.step(batch));
  const uint32_t n_vocab = runtime.graph().n_vocab;
  for (size_t i = 0; i < sessions.size(); ++i) {
    sessions[i]->tokens_.push_back(turns[i].token);
    if (on_logits) on_logits(i, {result.logits + uint64_t{i} * n_vocab, n_vocab});
  }
  return {};
}

}  // namespace sluice::engine
