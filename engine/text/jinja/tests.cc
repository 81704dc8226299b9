// The tests after `is`.
#include "engine/text/jinja/builtins.h"
#include "engine/text/jinja/strings.h"

namespace sluice::engine::jinja {
namespace {

bool same_case(Run& run, const Value& value, Case to) {
  if (!value.is(Kind::string) || !run.spend_bytes(32 * value.string().size())) return false;
  return change_case(value.string(), to) == value.string() &&
         change_case(value.string(), to == Case::upper ? Case::lower : Case::upper) != value.string();
}

bool divisible(Run& run, const Value& value, const Value& by) {
  const Value rest = arithmetic(run, "%", value, by);
  return run.ok() && rest.is_number() && rest.real() == 0;
}

struct Test {
  std::string_view name;
  bool (*holds)(Run& run, const Value& value, const Value& other);
  bool takes_other = false;
};

bool is_sequence(Run&, const Value& v, const Value&) {
  return v.is(Kind::list) || v.is(Kind::dict) || v.is(Kind::string) || v.is(Kind::undefined);
}
bool is_equal(Run& run, const Value& v, const Value& other) { return equal(run, v, other); }
bool is_not_equal(Run& run, const Value& v, const Value& other) { return !equal(run, v, other); }
bool is_less(Run& run, const Value& v, const Value& other) { return compare(run, v, other) < 0; }
bool is_less_equal(Run& run, const Value& v, const Value& other) { return compare(run, v, other) <= 0; }
bool is_greater(Run& run, const Value& v, const Value& other) { return compare(run, v, other) > 0; }
bool is_greater_equal(Run& run, const Value& v, const Value& other) { return compare(run, v, other) >= 0; }

constexpr Test tests[] = {
    {"defined", [](Run&, const Value& v, const Value&) { return !v.is(Kind::undefined); }},
    {"undefined", [](Run&, const Value& v, const Value&) { return v.is(Kind::undefined); }},
    {"none", [](Run&, const Value& v, const Value&) { return v.is(Kind::none); }},
    {"string", [](Run&, const Value& v, const Value&) { return v.is(Kind::string); }},
    {"number", [](Run&, const Value& v, const Value&) { return v.is_number(); }},
    {"integer", [](Run&, const Value& v, const Value&) { return v.is(Kind::integer); }},
    {"float", [](Run&, const Value& v, const Value&) { return v.is(Kind::real); }},
    {"boolean", [](Run&, const Value& v, const Value&) { return v.is(Kind::boolean); }},
    {"true", [](Run&, const Value& v, const Value&) { return v.is(Kind::boolean) && v.boolean(); }},
    {"false", [](Run&, const Value& v, const Value&) { return v.is(Kind::boolean) && !v.boolean(); }},
    {"mapping", [](Run&, const Value& v, const Value&) { return v.is(Kind::dict); }},
    {"sequence", is_sequence},
    {"iterable", [](Run& run, const Value& v, const Value& o) { return is_sequence(run, v, o) || v.is(Kind::loop); }},
    {"callable", [](Run&, const Value& v, const Value&) { return v.is(Kind::macro) || v.is(Kind::function); }},
    {"even", [](Run& run, const Value& v, const Value&) { return divisible(run, v, int64_t{2}); }},
    {"odd", [](Run& run, const Value& v, const Value&) { return !divisible(run, v, int64_t{2}); }},
    {"lower", [](Run& run, const Value& v, const Value&) { return same_case(run, v, Case::lower); }},
    {"upper", [](Run& run, const Value& v, const Value&) { return same_case(run, v, Case::upper); }},
    {"divisibleby", divisible, true},
    {"in", [](Run& run, const Value& v, const Value& other) { return contains(run, other, v); }, true},
    {"eq", is_equal, true},
    {"equalto", is_equal, true},
    {"sameas", is_equal, true},
    {"==", is_equal, true},
    {"ne", is_not_equal, true},
    {"!=", is_not_equal, true},
    {"lt", is_less, true},
    {"lessthan", is_less, true},
    {"<", is_less, true},
    {"le", is_less_equal, true},
    {"<=", is_less_equal, true},
    {"gt", is_greater, true},
    {"greaterthan", is_greater, true},
    {">", is_greater, true},
    {"ge", is_greater_equal, true},
    {">=", is_greater_equal, true},
};

}  // namespace

bool apply_test(Run& run, std::string_view name, const Value& value, const Arguments& arguments) {
  for (const Test& test : tests) {
    if (test.name != name) continue;
    if (arguments.size() != (test.takes_other ? 1u : 0u) || !arguments.named.empty()) {
      run.fail(Code::corrupt, "the test \"{}\" takes {} argument", name, test.takes_other ? "one" : "no");
      return false;
    }
    return run.spend(1) && test.holds(run, value, test.takes_other ? arguments.positional[0] : Value());
  }
  run.fail(Code::unsupported, "the test \"{}\" is not implemented", name);
  return false;
}

}  // namespace sluice::engine::jinja
