// The expressions of the template language, by recursive descent with Jinja's precedences.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "engine/text/jinja/ast.h"
#include "engine/text/jinja/lexer.h"

namespace sluice::engine::jinja {

// Reads tokens and builds expressions. After a failure everything returns null and ok() is false.
class ExpressionParser {
 public:
  explicit ExpressionParser(std::span<const Token> tokens) : tokens_(tokens) {}

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }

  const Token& current() const { return tokens_[at_]; }
  void next() { at_ += at_ + 1 < tokens_.size(); }
  bool is_op(std::string_view op) const { return current().kind == Token::Kind::op && current().text == op; }
  bool is_name(std::string_view name) const { return current().kind == Token::Kind::name && current().text == name; }
  bool take_op(std::string_view op);
  bool take_name(std::string_view name);
  void expect_op(std::string_view op);
  std::string expect_name();

  // `with_condition`: is "a if b" part of it? `tuple`: may it be "a, b"?
  ExpressionPtr expression(bool with_condition = true, bool tuple = false);
  // The names of an assignment or a for: "a" or "a, b".
  std::vector<std::string> targets();
  // Filters behind an expression that may be null.
  ExpressionPtr filters(ExpressionPtr input);

  ExpressionPtr fail(Code code, std::string message);

  // Enters a nested construct; false, and failed, where it is too deep.
  bool enter();
  void leave() { --depth_; }

 private:
  friend class NestedParse;
  ExpressionPtr make(Expression::Kind kind, std::vector<ExpressionPtr> parts = {}, std::string text = {});
  ExpressionPtr check(ExpressionPtr expression);

  ExpressionPtr single(bool with_condition);
  ExpressionPtr either();
  ExpressionPtr both();
  ExpressionPtr negation();
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concat();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filters = true);
  ExpressionPtr primary();
  ExpressionPtr constant_name();
  ExpressionPtr strings();
  ExpressionPtr number();
  ExpressionPtr parenthesized();
  ExpressionPtr list();
  ExpressionPtr dict();
  ExpressionPtr postfix(ExpressionPtr base);
  ExpressionPtr bracket(ExpressionPtr base);
  ExpressionPtr test(ExpressionPtr input);
  void arguments(Expression& call);

  std::span<const Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  Status status_;
};

}  // namespace sluice::engine::jinja
