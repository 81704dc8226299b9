// A chat template and a conversation from one input: the template up to the first NUL, then role and content
// in turn, each up to a NUL.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "engine/text/chat_template.h"

namespace {

std::string_view part(std::string_view& rest) {
  const size_t end = std::min(rest.find('\0'), rest.size());
  const std::string_view text = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return text;
}

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice::engine;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const std::string_view source = part(rest);
  std::vector<ChatMessage> messages;
  while (!rest.empty()) {
    const std::string_view role = part(rest);
    messages.push_back({role, part(rest)});
  }
  const auto parsed = ChatTemplate::parse(source);
  if (!parsed.ok()) {
    require(parsed.status().message().find("line ") != std::string::npos);
    return 0;
  }
  ChatInput input;
  input.messages = messages;
  input.bos_token = "<s>";
  input.now.emplace();
  input.now->tm_mday = 1;
  ChatLimits limits;
  limits.steps = 20'000;
  limits.bytes = 1 << 20;
  const auto text = parsed->render(input, limits);
  if (!text.ok()) require(!text.status().message().empty());
  else require(text->size() <= limits.bytes + 8 * (size + 64 * messages.size() + 64));
  return 0;
}
