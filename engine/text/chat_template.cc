#include "engine/text/chat_template.h"

#include "engine/text/jinja/parser.h"
#include "engine/text/jinja/renderer.h"

namespace sluice::engine {
namespace {

using jinja::Value;

uint64_t size_of(const jinja::Body& body);

uint64_t size_of(const jinja::ExpressionPtr& x) {
  if (!x) return 0;
  uint64_t bytes = sizeof(*x) + x->text.capacity() + x->parts.capacity() * sizeof(x->parts[0]);
  if (x->value.is(jinja::Kind::string)) bytes += sizeof(jinja::Text) + x->value.string().capacity();
  for (const auto& part : x->parts) bytes += size_of(part);
  for (const auto& [name, part] : x->named) bytes += sizeof(x->named[0]) + size_of(part);
  return bytes;
}

uint64_t size_of(const jinja::Statement& s) {
  uint64_t bytes = sizeof(s) + s.text.capacity() + s.names.capacity() * sizeof(std::string);
  bytes += size_of(s.expression) + size_of(s.condition) + size_of(s.body) + size_of(s.otherwise);
  for (const auto& [test, body] : s.branches) bytes += sizeof(s.branches[0]) + size_of(test) + size_of(body);
  return s.macro ? bytes + sizeof(*s.macro) + size_of(s.macro->body) : bytes;
}

uint64_t size_of(const jinja::Body& body) {
  uint64_t bytes = body.capacity() * sizeof(body[0]);
  for (const auto& statement : body) bytes += size_of(*statement);
  return bytes;
}

uint64_t size_of(const ChatInput& input) {
  uint64_t bytes = 0;
  for (const ChatMessage& message : input.messages) bytes += message.role.size() + message.content.size() + 64;
  return bytes;
}

Value make_messages(jinja::Run& run, std::span<const ChatMessage> messages) {
  const Value role = run.text("role"), content = run.text("content");
  jinja::Items items;
  for (const ChatMessage& message : messages) {
    Value message_role = run.text(std::string(message.role)), message_content = run.text(std::string(message.content));
    items.push_back(run.dict({{role, std::move(message_role)}, {content, std::move(message_content)}}));
  }
  return run.list(std::move(items));
}

Value make_value(jinja::Run& run, const ChatVariable& variable) {
  if (const bool* flag = std::get_if<bool>(&variable.value)) return *flag;
  if (const int64_t* number = std::get_if<int64_t>(&variable.value)) return *number;
  return run.text(std::string(std::get<std::string_view>(variable.value)));
}

}  // namespace

struct ChatTemplate::Tree {
  jinja::Body body;
  uint64_t bytes = 0;
};

ChatTemplate::ChatTemplate(std::unique_ptr<const Tree> tree) : tree_(std::move(tree)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::parse(std::string_view source) {
  auto tree = std::make_unique<Tree>();
  SLUICE_ASSIGN_OR_RETURN(tree->body, jinja::parse(source));
  tree->bytes = sizeof(Tree) + size_of(tree->body);
  return ChatTemplate(std::move(tree));
}

Result<std::string> ChatTemplate::render(const ChatInput& input, const ChatLimits& limits) const {
  const uint64_t input_bytes = size_of(input);
  jinja::Run run(limits.steps + input_bytes / 4, limits.bytes + 8 * input_bytes);
  jinja::Renderer renderer(run, input.now ? &*input.now : nullptr);
  renderer.set("messages", make_messages(run, input.messages));
  renderer.set("add_generation_prompt", input.add_generation_prompt);
  renderer.set("bos_token", run.text(std::string(input.bos_token)));
  renderer.set("eos_token", run.text(std::string(input.eos_token)));
  renderer.set("tools", jinja::None{});
  renderer.set("documents", jinja::None{});
  for (const ChatVariable& variable : input.variables) renderer.set(variable.name, make_value(run, variable));
  std::string text = renderer.render(tree_->body);
  if (!run.ok()) return run.status();
  return text;
}

uint64_t ChatTemplate::memory_bytes() const { return sizeof(*this) + tree_->bytes; }

}  // namespace sluice::engine
