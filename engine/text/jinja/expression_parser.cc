#include "engine/text/jinja/expression_parser.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace sluice::engine::jinja {
namespace {

constexpr int max_parse_depth = 100;
constexpr int max_tree_depth = 200;

constexpr std::array<std::string_view, 6> comparisons = {"==", "!=", "<", "<=", ">", ">="};

}  // namespace

ExpressionPtr ExpressionParser::fail(Code code, std::string message) {
  if (status_.ok()) status_ = error(code, "chat template, line {}: {}", current().line, message);
  return nullptr;
}

bool ExpressionParser::enter() {
  if (++depth_ > max_parse_depth) fail(Code::over_budget, "it is nested too deep");
  return ok();
}

bool ExpressionParser::take_op(std::string_view op) {
  if (!is_op(op)) return false;
  next();
  return true;
}

bool ExpressionParser::take_name(std::string_view name) {
  if (!is_name(name)) return false;
  next();
  return true;
}

void ExpressionParser::expect_op(std::string_view op) {
  if (!take_op(op)) fail(Code::corrupt, fmt::format("expected \"{}\", found \"{}\"", op, current().text.substr(0, 32)));
}

std::string ExpressionParser::expect_name() {
  if (current().kind != Token::Kind::name) {
    fail(Code::corrupt, fmt::format("expected a name, found \"{}\"", current().text.substr(0, 32)));
    return {};
  }
  std::string name = current().text;
  next();
  return name;
}

ExpressionPtr ExpressionParser::make(Expression::Kind kind, std::vector<ExpressionPtr> parts, std::string text) {
  auto made = std::make_unique<Expression>();
  made->kind = kind;
  made->line = current().line;
  made->text = std::move(text);
  made->parts = std::move(parts);
  return check(std::move(made));
}

// Trees stay shallow, so that walking and freeing them does.
ExpressionPtr ExpressionParser::check(ExpressionPtr made) {
  for (const auto& part : made->parts) {
    if (part) made->depth = std::max(made->depth, part->depth + 1);
  }
  for (const auto& [name, part] : made->named) {
    if (part) made->depth = std::max(made->depth, part->depth + 1);
  }
  if (made->depth > max_tree_depth) return fail(Code::over_budget, "an expression is nested too deep");
  return ok() ? std::move(made) : nullptr;
}

namespace {
template <class... Parts>
std::vector<ExpressionPtr> parts_of(Parts... parts) {
  std::vector<ExpressionPtr> all;
  (all.push_back(std::move(parts)), ...);
  return all;
}
}  // namespace

ExpressionPtr ExpressionParser::expression(bool with_condition, bool tuple) {
  ExpressionPtr first = single(with_condition);
  if (!tuple || !is_op(",")) return first;
  std::vector<ExpressionPtr> parts = parts_of(std::move(first));
  while (ok() && take_op(",")) {
    const Token& token = current();
    const bool ends = token.kind == Token::Kind::variable_end || token.kind == Token::Kind::block_end || is_op(")");
    if (ends) break;
    parts.push_back(single(with_condition));
  }
  return make(Expression::Kind::tuple, std::move(parts));
}

std::vector<std::string> ExpressionParser::targets() {
  const bool parenthesis = take_op("(");
  std::vector<std::string> names = {expect_name()};
  while (ok() && take_op(",")) names.push_back(expect_name());
  if (parenthesis) expect_op(")");
  return names;
}

ExpressionPtr ExpressionParser::single(bool with_condition) {
  if (!enter()) return nullptr;
  ExpressionPtr value = either();
  while (ok() && with_condition && take_name("if")) {
    ExpressionPtr condition = either();
    ExpressionPtr other = ok() && take_name("else") ? single(true) : nullptr;
    value = make(Expression::Kind::conditional, parts_of(std::move(value), std::move(condition), std::move(other)));
  }
  leave();
  return value;
}

ExpressionPtr ExpressionParser::either() {
  ExpressionPtr left = both();
  while (ok() && take_name("or")) left = make(Expression::Kind::either, parts_of(std::move(left), both()));
  return left;
}

ExpressionPtr ExpressionParser::both() {
  ExpressionPtr left = negation();
  while (ok() && take_name("and")) left = make(Expression::Kind::both, parts_of(std::move(left), negation()));
  return left;
}

ExpressionPtr ExpressionParser::negation() {
  if (!take_name("not")) return comparison();
  if (!enter()) return nullptr;
  ExpressionPtr inner = negation();
  leave();
  return make(Expression::Kind::negate, parts_of(std::move(inner)));
}

ExpressionPtr ExpressionParser::comparison() {
  std::vector<ExpressionPtr> parts = parts_of(sum());
  std::vector<std::string> names;
  while (ok()) {
    const bool is_comparison = current().kind == Token::Kind::op &&
                               std::find(comparisons.begin(), comparisons.end(), current().text) != comparisons.end();
    if (is_comparison) {
      names.push_back(current().text);
      next();
    } else if (is_name("not") && tokens_[std::min(at_ + 1, tokens_.size() - 1)].text == "in") {
      next();
      next();
      names.push_back("not in");
    } else if (take_name("in")) {
      names.push_back("in");
    } else {
      break;
    }
    parts.push_back(sum());
  }
  if (names.empty()) return std::move(parts[0]);
  ExpressionPtr made = make(Expression::Kind::comparison, std::move(parts));
  if (made) made->names = std::move(names);
  return made;
}

ExpressionPtr ExpressionParser::sum() {
  ExpressionPtr left = concat();
  while (ok() && (is_op("+") || is_op("-"))) {
    std::string op = current().text;
    next();
    left = make(Expression::Kind::arithmetic, parts_of(std::move(left), concat()), std::move(op));
  }
  return left;
}

ExpressionPtr ExpressionParser::concat() {
  std::vector<ExpressionPtr> parts = parts_of(product());
  while (ok() && take_op("~")) parts.push_back(product());
  return parts.size() == 1 ? std::move(parts[0]) : make(Expression::Kind::concat, std::move(parts));
}

ExpressionPtr ExpressionParser::product() {
  ExpressionPtr left = power();
  while (ok() && (is_op("*") || is_op("/") || is_op("//") || is_op("%"))) {
    std::string op = current().text;
    next();
    left = make(Expression::Kind::arithmetic, parts_of(std::move(left), power()), std::move(op));
  }
  return left;
}

ExpressionPtr ExpressionParser::power() {
  ExpressionPtr left = unary();
  while (ok() && take_op("**")) left = make(Expression::Kind::arithmetic, parts_of(std::move(left), unary()), "**");
  return left;
}

ExpressionPtr ExpressionParser::unary(bool with_filters) {
  if (!enter()) return nullptr;
  ExpressionPtr value;
  if (take_op("-")) {
    value = make(Expression::Kind::minus, parts_of(unary(false)));
  } else if (take_op("+")) {
    value = make(Expression::Kind::plus, parts_of(unary(false)));
  } else {
    value = primary();
  }
  value = postfix(std::move(value));
  if (with_filters) value = filters(std::move(value));
  leave();
  return value;
}

ExpressionPtr ExpressionParser::primary() {
  if (!ok()) return nullptr;
  switch (current().kind) {
    case Token::Kind::name: return constant_name();
    case Token::Kind::string: return strings();
    case Token::Kind::integer:
    case Token::Kind::real: return number();
    default: break;
  }
  if (take_op("(")) return parenthesized();
  if (take_op("[")) return list();
  if (take_op("{")) return dict();
  return fail(Code::corrupt, fmt::format("expected an expression, found \"{}\"", current().text.substr(0, 32)));
}

ExpressionPtr ExpressionParser::constant_name() {
  std::string name = expect_name();
  ExpressionPtr made = make(Expression::Kind::constant);
  if (!made) return nullptr;
  if (name == "true" || name == "True") {
    made->value = true;
  } else if (name == "false" || name == "False") {
    made->value = false;
  } else if (name == "none" || name == "None") {
    made->value = None{};
  } else {
    made->kind = Expression::Kind::name;
    made->text = std::move(name);
  }
  return made;
}

ExpressionPtr ExpressionParser::strings() {
  std::string text;
  while (current().kind == Token::Kind::string) {
    text += current().text;
    next();
  }
  ExpressionPtr made = make(Expression::Kind::constant);
  if (made) made->value = std::make_shared<const Text>(std::move(text), nullptr);
  return made;
}

ExpressionPtr ExpressionParser::number() {
  const std::string text = current().text;
  const bool real = current().kind == Token::Kind::real;
  next();
  ExpressionPtr made = make(Expression::Kind::constant);
  if (!made) return nullptr;
  int64_t integer = 0;
  double number = 0;
  const auto parsed = real ? std::from_chars(text.data(), text.data() + text.size(), number)
                           : std::from_chars(text.data(), text.data() + text.size(), integer);
  if (parsed.ec != std::errc())
    return fail(Code::unsupported, fmt::format("the number {} is too large", text.substr(0, 32)));
  made->value = real ? Value(number) : Value(integer);
  return made;
}

ExpressionPtr ExpressionParser::parenthesized() {
  if (take_op(")")) return make(Expression::Kind::tuple);
  ExpressionPtr inner = expression(true, true);
  expect_op(")");
  return inner;
}

ExpressionPtr ExpressionParser::list() {
  std::vector<ExpressionPtr> parts;
  while (ok() && !is_op("]")) {
    parts.push_back(expression());
    if (!take_op(",")) break;
  }
  expect_op("]");
  return make(Expression::Kind::list, std::move(parts));
}

ExpressionPtr ExpressionParser::dict() {
  std::vector<ExpressionPtr> parts;
  while (ok() && !is_op("}")) {
    parts.push_back(expression());
    expect_op(":");
    parts.push_back(expression());
    if (!take_op(",")) break;
  }
  expect_op("}");
  return make(Expression::Kind::dict, std::move(parts));
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr base) {
  while (ok()) {
    if (take_op(".")) {
      if (current().kind == Token::Kind::integer) {
        base = make(Expression::Kind::subscript, parts_of(std::move(base), number()));
      } else {
        base = make(Expression::Kind::attribute, parts_of(std::move(base)), expect_name());
      }
    } else if (take_op("[")) {
      base = bracket(std::move(base));
    } else if (is_op("(")) {
      ExpressionPtr call = make(Expression::Kind::call, parts_of(std::move(base)));
      if (call) arguments(*call);
      base = call ? check(std::move(call)) : nullptr;
    } else {
      break;
    }
  }
  return base;
}

ExpressionPtr ExpressionParser::bracket(ExpressionPtr base) {
  std::vector<ExpressionPtr> parts = parts_of(std::move(base));
  bool slice = false;
  while (ok() && !is_op("]") && parts.size() <= 3) {
    parts.push_back(is_op(":") ? nullptr : expression(true, true));
    if (!take_op(":")) break;
    slice = true;
    if (is_op("]")) parts.push_back(nullptr);
  }
  expect_op("]");
  if (ok() && parts.size() == 1) return fail(Code::corrupt, "expected an index");
  if (!slice) return make(Expression::Kind::subscript, std::move(parts));
  parts.resize(4);
  return make(Expression::Kind::slice, std::move(parts));
}

ExpressionPtr ExpressionParser::filters(ExpressionPtr input) {
  while (ok()) {
    if (take_op("|")) {
      ExpressionPtr made = make(Expression::Kind::filter, parts_of(std::move(input)), expect_name());
      if (made && is_op("(")) arguments(*made);
      input = made ? check(std::move(made)) : nullptr;
    } else if (take_name("is")) {
      input = test(std::move(input));
    } else if (is_op("(")) {
      ExpressionPtr call = make(Expression::Kind::call, parts_of(std::move(input)));
      if (call) arguments(*call);
      input = call ? check(std::move(call)) : nullptr;
    } else {
      break;
    }
  }
  return input;
}

ExpressionPtr ExpressionParser::test(ExpressionPtr input) {
  const bool negated = take_name("not");
  ExpressionPtr made = make(Expression::Kind::test, parts_of(std::move(input)), expect_name());
  if (!made) return nullptr;
  const Token& token = current();
  const bool name_argument = token.kind == Token::Kind::name && token.text != "else" && token.text != "or" &&
                             token.text != "and" && token.text != "is" && token.text != "if" && token.text != "in" &&
                             token.text != "not";
  const bool value_argument = token.kind == Token::Kind::string || token.kind == Token::Kind::integer ||
                              token.kind == Token::Kind::real || is_op("[") || is_op("{");
  if (is_op("(")) {
    arguments(*made);
  } else if (name_argument || value_argument) {
    made->parts.push_back(postfix(primary()));
  }
  made = check(std::move(made));
  return negated ? make(Expression::Kind::negate, parts_of(std::move(made))) : std::move(made);
}

void ExpressionParser::arguments(Expression& call) {
  expect_op("(");
  while (ok() && !is_op(")")) {
    const bool named = current().kind == Token::Kind::name && at_ + 1 < tokens_.size() &&
                       tokens_[at_ + 1].kind == Token::Kind::op && tokens_[at_ + 1].text == "=";
    if (named) {
      std::string name = expect_name();
      expect_op("=");
      call.named.emplace_back(std::move(name), expression());
    } else if (is_op("*") || is_op("**")) {
      fail(Code::unsupported, "calls with * or ** are not implemented");
    } else {
      if (!call.named.empty()) fail(Code::corrupt, "a positional argument follows a named one");
      call.parts.push_back(expression());
    }
    if (!take_op(",")) break;
  }
  expect_op(")");
}

}  // namespace sluice::engine::jinja
