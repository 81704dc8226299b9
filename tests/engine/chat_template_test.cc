// Chat templates against Jinja itself (fixtures/chat_templates.json), their errors, and their bounds.
#include "engine/text/chat_template.h"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/engine/engine_rig.h"

namespace sluice::engine {
namespace {

using nlohmann::json;

struct Conversation {
  std::vector<ChatMessage> views;
  std::vector<std::string> texts;

  explicit Conversation(const json& messages) {
    texts.reserve(2 * messages.size());
    for (const json& m : messages) {
      texts.push_back(m["role"]);
      texts.push_back(m["content"]);
      views.push_back({texts[texts.size() - 2], texts.back()});
    }
  }
};

ChatInput input_of(const Conversation& conversation) {
  ChatInput input;
  input.messages = conversation.views;
  input.bos_token = "<s>";
  input.eos_token = "</s>";
  return input;
}

Result<std::string> render(const std::string& source, const ChatInput& input) {
  auto parsed = ChatTemplate::parse(source);
  if (!parsed.ok()) return parsed.status();
  return parsed->render(input);
}

Result<std::string> render(const std::string& source) {
  const Conversation conversation(json::parse(R"([{"role": "user", "content": "Hello"}])"));
  return render(source, input_of(conversation));
}

// A case names one of the fixture's templates, or is one itself.
std::string source_of(const json& all, const json& c) {
  const std::string name = c["template"];
  return all["templates"].contains(name) ? all["templates"][name].get<std::string>() : name;
}

// As Jinja rendered it; where Jinja refuses, a Status that names the line.
TEST_CASE("chat template: every fixture renders as Jinja renders it, or is refused as there") {
  const json all = test::read_json(test::fixture("chat_templates.json"));
  std::map<std::string, int> checked;
  for (const json& c : all["cases"]) {
    const Conversation conversation(all["conversations"][c["conversation"].get<std::string>()]);
    ChatInput input = input_of(conversation);
    input.add_generation_prompt = c["add_generation_prompt"];
    std::vector<ChatVariable> variables;
    std::vector<std::string> words;
    words.reserve(8);
    for (const auto& [name, value] : c["variables"].items()) {
      if (value.is_boolean()) variables.push_back({name, value.get<bool>()});
      else if (value.is_number()) variables.push_back({name, value.get<int64_t>()});
      else variables.push_back({name, std::string_view(words.emplace_back(value.get<std::string>()))});
    }
    std::vector<std::string> names;  // the keys of json's items() do not last
    names.reserve(variables.size());
    size_t at = 0;
    for (const auto& [name, value] : c["variables"].items()) variables[at++].name = names.emplace_back(name);
    input.variables = variables;
    const auto text = render(source_of(all, c), input);
    const std::string which = c["template"].get<std::string>() + ", " + c["conversation"].get<std::string>();
    ++checked[c.contains("text") ? "text" : "error"];
    if (c.contains("text")) {
      CHECK_MESSAGE(text.ok(), which << "\n" << text.status().message());
      if (text.ok()) CHECK_MESSAGE(*text == c["text"].get<std::string>(), which);
    } else {
      CHECK_MESSAGE(!text.ok(), which);
      CHECK_MESSAGE(text.status().message().find("line ") != std::string::npos, text.status().message());
    }
  }
  CHECK(checked["text"] > 100);
  CHECK(checked["error"] > 40);
}

TEST_CASE("chat template: errors name the line, and say who refused") {
  const struct {
    const char* source;
    Code code;
    const char* line;
  } cases[] = {
      {"a\nb\n{{ raise_exception('not this') }}", Code::invalid_argument, "line 3: not this"},
      {"\n\n\n{{ nothing.x }}", Code::corrupt, "line 4: 'nothing' is undefined"},
      {"{% if true %}\n{{ 1 / 0 }}\n{% endif %}", Code::corrupt, "line 2: division by zero"},
      {"a\n{{ 'b'|frobnicate }}", Code::unsupported, "line 2"},
      {"a\n\n{% frobnicate %}", Code::unsupported, "line 3"},
      {"a\n{% if true %}\nb", Code::corrupt, "line"},
      {"a\n{{ 'b }}", Code::corrupt, "line 2"},
      {"{{ strftime_now('%Y') }}", Code::invalid_argument, "no time was given"},
  };
  for (const auto& c : cases) {
    const auto text = render(c.source);
    CHECK_MESSAGE(text.status().code() == c.code, c.source << ": " << text.status().message());
    CHECK_MESSAGE(text.status().message().find(c.line) != std::string::npos, text.status().message());
  }
}

TEST_CASE("chat template: the time is the one that was given") {
  const Conversation none(json::array());
  ChatInput input = input_of(none);
  std::tm now{};
  now.tm_year = 125;
  now.tm_mon = 6;
  now.tm_mday = 26;
  input.now = now;
  CHECK(test::must(render("{{ strftime_now('%d %b %Y') }}", input)) == "26 Jul 2025");
}

std::string times(const std::string& text, size_t n) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += text;
  return out;
}

std::string dict_of(size_t n) {
  std::string out = "{% set d = {";
  for (size_t i = 0; i < n; ++i) out += "'k" + std::to_string(i) + "': 1, ";
  return out + "} %}";
}

struct Runaway {
  std::string name, source;
};

// Templates that would take seconds, years or all memory.
std::vector<Runaway> runaways() {
  const std::string r = "{% for a in range(100000) %}", e = "{% endfor %}";
  const std::string many = "{% set s = 'a' * 1000000 %}";
  return {
      {"nested loops", times(r, 6) + "x" + times(e, 6)},
      {"nested empty loops", times(r, 6) + times(e, 6)},
      {"doubling strings", "{% set ns = namespace(s='x') %}" + r + "{% set ns.s = ns.s ~ ns.s %}" + e},
      {"doubling lists", "{% set ns = namespace(s=[1]) %}" + r + "{% set ns.s = ns.s + ns.s %}" + e},
      {"repeated string", "{{ 'a' * 9000000000000000000 }}"},
      {"repeated list", "{{ [1] * 9000000000000000000 }}"},
      {"recursion", "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}"},
      {"recursion twice", "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}"},
      {"huge range", "{{ range(0, 9000000000000000000) }}"},
      {"replace grows", many + "{{ s.replace('a', s) }}"},
      {"replace between", many + "{{ s.replace('', s) }}"},
      {"join grows", "{{ range(100000)|join('" + times("x", 4000) + "') }}"},
      {"indent grows", "{% set s = '\\n' * 1000000 %}{{ s|indent(256, true, true) }}"},
      {"nested values", "{% set ns = namespace(s=[]) %}" + r + "{% set ns.s = [ns.s, ns.s] %}" + e + "{{ ns.s }}"},
      {"wide shared values",
       "{% set ns = namespace(s='abc') %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}" + e + "{{ ns.s }}"},
      {"wide shared json", "{% set ns = namespace(s='abc') %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}" +
                               e + "{{ ns.s|tojson(indent=32) }}"},
      {"wide shared empty lists",
       "{% set ns = namespace(s=[]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}" + e +
           "{{ ns.s|tojson(indent=32) }}{{ ns.s == [[ns.s]] }}"},
      {"equal shared values",
       "{% set ns = namespace(s=1, t=1) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}"
       "{% set ns.t = [ns.t, ns.t] %}" +
           e + "{{ ns.s == ns.t }}"},
      {"search that nearly matches", many + "{% set t = 'a' * 500000 ~ 'b' %}" + r + "{{ t in s }}" + e},
      {"find that nearly matches",
       many + "{% set t = 'a' * 500000 ~ 'b' %}" + r + "{{ s.find(t) }}{{ s.rfind(t) }}" + e},
      {"rfind that nearly matches", many + "{% set t = 'b' ~ 'a' * 500000 %}" + r + "{{ s.rfind(t) }}" + e},
      {"count that nearly matches", many + "{% set t = 'a' * 500000 ~ 'b' %}" + r + "{{ s.count(t) }}" + e},
      {"split that nearly matches",
       many + "{% set t = 'a' * 500000 ~ 'b' %}" + r + "{{ s.split(t) }}{{ s.rsplit(t) }}" + e},
      {"replace that nearly matches", many + "{% set t = 'a' * 500000 ~ 'b' %}" + r + "{{ s.replace(t, '') }}" + e},
      {"startswith", many + "{% set t = 'a' * 999999 %}" + r + "{% if s.startswith(t) %}{% endif %}" + e},
      {"strip of many", many + "{% set t = 'b' * 1000000 ~ 'a' %}{{ s.strip(t) }}"},
      {"trim of many", many + "{% set t = 'b' * 1000000 ~ 'a' %}{{ s|trim(t) }}"},
      {"missing keys", dict_of(20'000) + r + "{{ d.zz }}{{ d['zz'] }}{{ d.get('zz') }}" + e},
      {"last keys", dict_of(20'000) + r + "{% set x = d.k19999 %}{% set x = d['k19999'] %}" + e},
      {"dict copies", dict_of(20'000) + r + "{% set x = dict(d, a=1) %}" + e},
      {"dict views", dict_of(20'000) + r + "{% set x = d.keys() %}{% set x = d.values() %}{% set x = d.items() %}" + e},
      {"dict is a key", dict_of(2'000) + r + "{% set x = d == d %}" + e},
      {"many variables", "{% set a = 1 %}" +
                             [] {
                               std::string s;
                               for (int i = 0; i < 5000; ++i) s += "{% set v" + std::to_string(i) + " = 1 %}";
                               return s;
                             }() +
                             r + "{{ a }}{{ v4999 }}{{ zz }}" + e},
      {"many attributes", "{% set ns = namespace() %}" +
                              [] {
                                std::string s;
                                for (int i = 0; i < 5000; ++i) s += "{% set ns.v" + std::to_string(i) + " = 1 %}";
                                return s;
                              }() +
                              r + "{{ ns.v4999 }}{{ ns.zz }}" + e},
      {"unique", "{{ range(100000)|unique }}"},
      {"sort", "{% set x = range(100000)|list %}" + r + "{% set y = x|sort %}" + e},
      {"list in list",
       "{% set x = range(100000)|list %}" + r + "{% set y = (a + 100000) in x %}{% set y = x.count(a) %}" + e},
      {"slices", many + r + "{% set x = s[::-1] %}{% set y = s[:1] %}" + e},
      {"characters", many + r + "{% set x = s[999999] %}" + e},
      {"case", many + r + "{% set x = s|upper|lower|title %}{% set y = s is upper %}" + e},
      {"long compare", many + "{% set t = s ~ 'b' %}" + r + "{% set x = s < t %}{% set y = s == t[:-1] %}" + e},
      {"escape", many + r + "{% set x = s|e %}" + e},
      {"truth of length", many + r + "{% set x = s|length %}" + e},
      {"split lines", "{% set s = '\\n' * 100000 %}" + r + "{% set x = s.splitlines() %}" + e},
      {"split spaces", "{% set s = ' a' * 100000 %}" + r + "{% set x = s.split() %}" + e},
      {"split no spaces", many + r + "{% set x = s.split() %}" + e},
      {"space at the end", "{% set s = ' ' * 1000000 %}" + r + "{% set x = s.strip() %}{% set y = s.isspace() %}" + e},
      {"powers", r + "{% set x = 3 ** 39 %}{% set y = (0 - 1) ** 9000000000000000000 %}" + e},
      {"time formats", "{% set s = '%c' * 1000000 %}" + r + "{% set x = strftime_now(s) %}" + e},
      {"macro text", many + "{% macro f() %}{{ s }}{% endmacro %}" + r + "{% set x = f() %}" + e},
      {"output", r + "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" + e},
      {"map", "{% set x = range(100000)|list %}" + r + "{% set y = x|map('string')|map('upper')|list %}" + e},
      {"long names", r + "{% set x = " + times("a", 100'000) + " %}" + e},
      {"filter loop", r + "{% for x in range(100000) if false %}{% endfor %}" + e},
  };
}

// Instrumented builds are slower by far.
double time_limit() { return std::string_view(SLUICE_SANITIZE).empty() ? 0.1 : 3.0; }

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

TEST_CASE("chat template: runaway templates end within 100 ms" * doctest::test_suite("one thread")) {
  std::tm now{};
  now.tm_mday = 1;
  const Conversation conversation(json::parse(R"([{"role": "user", "content": "Hello"}])"));
  ChatInput input = input_of(conversation);
  input.now = now;
  for (const Runaway& runaway : runaways()) {
    const auto parsed = ChatTemplate::parse(runaway.source);
    REQUIRE_MESSAGE(parsed.ok(), runaway.name << ": " << parsed.status().message());
    double best = 1e9;  // of three, and of this thread alone: the machine may be busy
    Status status;
    for (int i = 0; i < 3 && best > time_limit(); ++i) {
      const double start = thread_seconds();
      status = parsed->render(input).status();
      best = std::min(best, thread_seconds() - start);
    }
    CHECK_MESSAGE(status.code() == Code::over_budget, runaway.name << ": " << status.message());
    CHECK_MESSAGE(best <= time_limit(), runaway.name << " took " << best << " s");
  }
}

TEST_CASE("chat template: parsing is bounded in depth and linear in length" * doctest::test_suite("one thread")) {
  for (const auto& [open, close] :
       std::map<std::string, std::string>{{"(", ")"}, {"[", "]"}, {"not ", ""}, {"-", ""}}) {
    const auto deep = ChatTemplate::parse("{{ " + times(open, 100'000) + "1" + times(close, 100'000) + " }}");
    CHECK_MESSAGE(!deep.ok(), open);
  }
  CHECK(!ChatTemplate::parse(times("{% if 1 %}", 100'000) + times("{% endif %}", 100'000)).ok());
  CHECK(!ChatTemplate::parse(times("{% for x in y %}", 100'000) + times("{% endfor %}", 100'000)).ok());
  CHECK(!ChatTemplate::parse("{{ x" + times(".a", 100'000) + " }}").ok());
  CHECK(!ChatTemplate::parse("{{ x" + times("|upper", 100'000) + " }}").ok());
  CHECK(!ChatTemplate::parse("{{ 1" + times(" + 1", 100'000) + " }}").ok());
  for (const char* unit :
       {"{", "{{ 1 }}", "{# c #}", "{% set x = 1 %}", "{% raw %}{% endraw %}", "text\n", "{{ 'a\\n' }}",
        "{{- 1 -}} \n ", "   {% if 1 %}a{% endif %}", "{% raw %}", "{#", "\r", "\r\n"}) {
    const auto start = std::chrono::steady_clock::now();
    ChatTemplate::parse(times(unit, 100'000)).status().ignore();
    const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    CHECK_MESSAGE(took < 10 * time_limit(), unit << " took " << took << " s");
  }
}

TEST_CASE("chat template: long conversations are within the bounds") {
  const json all = test::read_json(test::fixture("chat_templates.json"));
  json messages = json::array();
  for (int i = 0; i < 400; ++i)
    messages.push_back({{"role", i % 2 ? "assistant" : "user"}, {"content", times("word </th nk> ", 300)}});
  const Conversation conversation(messages);
  for (const auto& [name, source] : all["templates"].items()) {
    const auto text = render(source.get<std::string>(), input_of(conversation));
    CHECK_MESSAGE(text.ok(), name << ": " << text.status().message());
  }
}

TEST_CASE("chat template: memory is told, and parsing what is cut anywhere never crashes") {
  const json all = test::read_json(test::fixture("chat_templates.json"));
  const Conversation conversation(json::parse(R"([{"role": "user", "content": "Hello"}])"));
  std::set<std::string> seen;
  for (const json& c : all["cases"]) {
    const std::string source = source_of(all, c);
    if (!seen.insert(source).second) continue;
    if (const auto whole = ChatTemplate::parse(source); whole.ok()) CHECK(whole->memory_bytes() > 0);
    for (size_t n = 0; n<source.size(); n += source.size()> 400 ? 7 : 1)
      render(source.substr(0, n), input_of(conversation)).status().ignore();
  }
}

}  // namespace
}  // namespace sluice::engine
