#include "engine/text/jinja/parser.h"

#include <algorithm>
#include <initializer_list>

#include "engine/text/jinja/expression_parser.h"

namespace sluice::engine::jinja {
namespace {

constexpr size_t max_source = 1 << 20;
using Kind = Statement::Kind;
using StatementPtr = std::unique_ptr<Statement>;
using Ends = std::initializer_list<std::string_view>;

class Parser {
 public:
  explicit Parser(std::span<const Token> tokens) : x_(tokens) {}

  Result<Body> run() {
    Body body = statements({});
    if (x_.ok() && x_.current().kind != Token::Kind::end) {
      x_.fail(Code::corrupt, fmt::format("\"{}\" ends nothing", x_.current().text.substr(0, 32)));
    }
    if (!x_.ok()) return x_.status();
    return body;
  }

 private:
  StatementPtr make(Kind kind) {
    auto made = std::make_unique<Statement>();
    made->kind = kind;
    made->line = x_.current().line;
    return made;
  }

  void expect_block_end() {
    if (x_.current().kind == Token::Kind::block_end) return x_.next();
    x_.fail(Code::corrupt, fmt::format("expected the end of a tag, found \"{}\"", x_.current().text.substr(0, 32)));
  }

  // Statements up to a tag that begins with one of `ends`, or with a stray end tag; that name is current
  // then. At the end of the template it is the end token.
  Body statements(Ends ends) {
    Body body;
    if (!x_.enter()) return body;
    while (x_.ok() && x_.current().kind != Token::Kind::end) {
      if (x_.current().kind == Token::Kind::block_begin) {
        x_.next();
        const std::string& name = x_.current().text;
        if (std::find(ends.begin(), ends.end(), name) != ends.end()) break;
        if (name.starts_with("end") || name == "else" || name == "elif") {
          x_.fail(Code::corrupt, fmt::format("\"{}\" does not belong here", name.substr(0, 32)));
          break;
        }
        tag(body);
      } else {
        text_or_print(body);
      }
    }
    x_.leave();
    if (x_.ok() && ends.size() > 0 && x_.current().kind == Token::Kind::end) {
      x_.fail(Code::corrupt, fmt::format("the template ends where \"{}\" is missing", *(ends.end() - 1)));
    }
    return body;
  }

  void text_or_print(Body& body) {
    const bool data = x_.current().kind == Token::Kind::data;
    StatementPtr made = make(data ? Kind::data : Kind::print);
    if (data) made->text = x_.current().text;
    x_.next();
    if (!data) {
      made->expression = x_.expression(true, true);
      if (x_.ok() && x_.current().kind != Token::Kind::variable_end) {
        x_.fail(Code::corrupt, fmt::format("expected \"}}}}\", found \"{}\"", x_.current().text.substr(0, 32)));
      }
      x_.next();
    }
    body.push_back(std::move(made));
  }

  void tag(Body& body) {
    const std::string name = x_.expect_name();
    if (name == "if") return body.push_back(condition());
    if (name == "for") return body.push_back(loop());
    if (name == "set") return body.push_back(assignment());
    if (name == "macro") return body.push_back(macro());
    if (name == "generation") return body.push_back(group());
    if (name == "break" || name == "continue") {
      if (loops_ == 0) x_.fail(Code::corrupt, fmt::format("{} outside of a loop", name));
      body.push_back(make(name == "break" ? Kind::break_loop : Kind::continue_loop));
      return expect_block_end();
    }
    x_.fail(Code::unsupported, fmt::format("the tag \"{}\" is not implemented", name.substr(0, 32)));
  }

  StatementPtr condition() {
    StatementPtr made = make(Kind::condition);
    do {
      ExpressionPtr test = x_.expression(true, true);
      expect_block_end();
      made->branches.emplace_back(std::move(test), statements({"elif", "else", "endif"}));
    } while (x_.ok() && x_.take_name("elif"));
    if (x_.take_name("else")) {
      expect_block_end();
      made->otherwise = statements({"endif"});
    }
    x_.take_name("endif");
    expect_block_end();
    return made;
  }

  StatementPtr loop() {
    StatementPtr made = make(Kind::loop);
    made->names = x_.targets();
    if (!x_.take_name("in")) x_.fail(Code::corrupt, "expected \"in\" in a for");
    made->expression = x_.expression(false, true);
    if (x_.ok() && x_.take_name("if")) made->condition = x_.expression();
    if (x_.is_name("recursive")) x_.fail(Code::unsupported, "recursive loops are not implemented");
    expect_block_end();
    ++loops_;
    made->body = statements({"else", "endfor"});
    --loops_;
    if (x_.take_name("else")) {
      expect_block_end();
      made->otherwise = statements({"endfor"});
    }
    x_.take_name("endfor");
    expect_block_end();
    return made;
  }

  StatementPtr assignment() {
    StatementPtr made = make(Kind::assign);
    made->names = x_.targets();
    if (x_.ok() && made->names.size() == 1 && x_.take_op(".")) made->names[0] += "." + x_.expect_name();
    if (x_.take_op("=")) {
      made->expression = x_.expression(true, true);
      expect_block_end();
      return made;
    }
    made->kind = Kind::assign_body;
    if (x_.is_op("|")) made->expression = x_.filters(nullptr);
    expect_block_end();
    made->body = statements({"endset"});
    x_.take_name("endset");
    expect_block_end();
    return made;
  }

  StatementPtr macro() {
    StatementPtr made = make(Kind::macro);
    made->macro = std::make_unique<MacroNode>();
    made->macro->name = x_.expect_name();
    x_.expect_op("(");
    while (x_.ok() && !x_.is_op(")")) {
      std::string name = x_.expect_name();
      ExpressionPtr fallback = x_.take_op("=") ? x_.expression() : nullptr;
      made->macro->parameters.emplace_back(std::move(name), std::move(fallback));
      if (!x_.take_op(",")) break;
    }
    x_.expect_op(")");
    expect_block_end();
    const int outer_loops = std::exchange(loops_, 0);
    made->macro->body = statements({"endmacro"});
    loops_ = outer_loops;
    x_.take_name("endmacro");
    if (x_.current().kind == Token::Kind::name) x_.next();  // "endmacro name"
    expect_block_end();
    return made;
  }

  StatementPtr group() {
    StatementPtr made = make(Kind::group);
    expect_block_end();
    made->body = statements({"endgeneration"});
    x_.take_name("endgeneration");
    expect_block_end();
    return made;
  }

  ExpressionParser x_;
  int loops_ = 0;
};

}  // namespace

Result<Body> parse(std::string_view source) {
  if (source.size() > max_source)
    return error(Code::over_budget, "chat template: {} bytes are too many", source.size());
  SLUICE_ASSIGN_OR_RETURN(const std::vector<Token> tokens, tokenize(source));
  return Parser(tokens).run();
}

}  // namespace sluice::engine::jinja
