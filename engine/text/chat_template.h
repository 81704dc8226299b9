// Chat templates: from a conversation to the text of a prompt, by the model's own Jinja template.
//
// A template comes with the model file and is as hostile as that. Rendering is bounded in steps, memory
// and depth, and can read nothing but its input. What of Jinja is understood is told by
// jinja/parser.h and jinja/builtins.h; anything else is an error that
// names it. White space is controlled as Hugging Face's apply_chat_template does it.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "sluice/status.h"

namespace sluice::engine {

struct ChatMessage {
  std::string_view role;  // "system", "user", "assistant"
  std::string_view content;
};

// A further variable that the template may know, "enable_thinking" for one.
struct ChatVariable {
  std::string_view name;
  std::variant<bool, int64_t, std::string_view> value;
};

struct ChatInput {
  std::span<const ChatMessage> messages;
  bool add_generation_prompt = true;
  std::string_view bos_token, eos_token;  // their text; empty where the model has none
  std::optional<std::tm> now;             // what strftime_now tells; without it that is an error
  std::span<const ChatVariable> variables;
};

struct ChatLimits {
  uint64_t steps = 400'000;             // about 50 ns each; one more for each 4 bytes of input
  uint64_t bytes = uint64_t{32} << 20;  // values and output, besides 8 times the input
};

// Immutable once parsed; any thread may render.
class ChatTemplate {
 public:
  // corrupt: a syntax error, with its line. unsupported: Jinja that is not implemented.
  static Result<ChatTemplate> parse(std::string_view source);

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // invalid_argument: the template refuses the conversation (raise_exception), with its message.
  // over_budget: it ran out of steps or memory. corrupt, unsupported: it does what makes no sense, or
  // what is not implemented.
  Result<std::string> render(const ChatInput& input, const ChatLimits& limits = {}) const;

  // Bytes of memory held.
  uint64_t memory_bytes() const;

 private:
  struct Tree;
  explicit ChatTemplate(std::unique_ptr<const Tree> tree);
  std::unique_ptr<const Tree> tree_;
};

}  // namespace sluice::engine
