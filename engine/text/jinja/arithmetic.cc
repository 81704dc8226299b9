#include <algorithm>
#include <cmath>

#include "engine/text/jinja/builtins.h"
#include "engine/text/jinja/strings.h"

namespace sluice::engine::jinja {
namespace {

Value mismatch(Run& run, std::string_view op, const Value& a, const Value& b) {
  for (const Value* v : {&a, &b}) {
    if (v->is(Kind::undefined)) return run.fail(Code::corrupt, "'{}' is undefined", v->missing_name());
  }
  return run.fail(Code::corrupt, "{} {} {} makes no sense", type_name(a), op, type_name(b));
}

Value integer_power(Run& run, int64_t base, int64_t exponent) {
  if (exponent < 0) return std::pow(static_cast<double>(base), static_cast<double>(exponent));
  int64_t result = 1;
  for (int64_t i = 0; i < exponent && result != 0; ++i) {
    if (base == 1 || base == 0) return exponent == 0 ? int64_t{1} : base;
    if (base == -1) return exponent % 2 ? int64_t{-1} : int64_t{1};
    if (__builtin_mul_overflow(result, base, &result))
      return run.fail(Code::unsupported, "{} ** {} is too large", base, exponent);
  }
  return result;
}

Value integers(Run& run, std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  if ((op == "//" || op == "%") && b == 0) return run.fail(Code::corrupt, "division by zero");
  if (op == "+" && !__builtin_add_overflow(a, b, &result)) return result;
  if (op == "-" && !__builtin_sub_overflow(a, b, &result)) return result;
  if (op == "*" && !__builtin_mul_overflow(a, b, &result)) return result;
  if (op == "**") return integer_power(run, a, b);
  if ((op == "//" || op == "%") && !(a == INT64_MIN && b == -1)) {
    const bool toward_zero = a % b == 0 || (a % b < 0) == (b < 0);
    if (op == "//") return toward_zero ? a / b : a / b - 1;
    return toward_zero ? a % b : a % b + b;
  }
  return run.fail(Code::unsupported, "{} {} {} is too large", a, op, b);
}

Value reals(Run& run, std::string_view op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "**") return std::pow(a, b);
  if (b == 0) return run.fail(Code::corrupt, "division by zero");
  if (op == "/") return a / b;
  if (op == "//") return std::floor(a / b);
  const double rest = std::fmod(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

Value repeat(Run& run, const Value& value, int64_t times) {
  times = std::max<int64_t>(times, 0);
  const uint64_t unit = value.is(Kind::string) ? value.string().size() : value.list().size();
  uint64_t total = 0;
  if (__builtin_mul_overflow(unit, static_cast<uint64_t>(times), &total)) total = UINT64_MAX;
  if (!run.spend(total / 64)) return {};
  if (value.is(Kind::string)) {
    if (!run.may_hold(total)) return {};
    std::string out;
    out.reserve(total);
    for (int64_t i = 0; i < times && unit > 0; ++i) out += value.string();
    return run.text(std::move(out));
  }
  if (!run.spend(total) || !run.may_hold(total * sizeof(Value))) return {};
  Items out;
  for (int64_t i = 0; i < times && unit > 0; ++i) out.insert(out.end(), value.list().begin(), value.list().end());
  return run.list(std::move(out), value.is_tuple());
}

}  // namespace

Value arithmetic(Run& run, std::string_view op, const Value& a, const Value& b) {
  if (!run.spend(1)) return {};
  if (a.is_number() && b.is_number()) {
    const bool real = a.is(Kind::real) || b.is(Kind::real) || op == "/";
    return real ? reals(run, op, a.real(), b.real()) : integers(run, op, a.integer(), b.integer());
  }
  if (op == "+" && a.is(Kind::string) && b.is(Kind::string)) {
    if (!run.may_hold(a.string().size() + b.string().size())) return {};
    return run.text(a.string() + b.string());
  }
  if (op == "+" && a.is(Kind::list) && b.is(Kind::list) && a.is_tuple() == b.is_tuple()) {
    if (!run.spend(a.list().size() + b.list().size())) return {};
    if (!run.may_hold((a.list().size() + b.list().size()) * sizeof(Value))) return {};
    Items items = a.list();
    items.insert(items.end(), b.list().begin(), b.list().end());
    return run.list(std::move(items), a.is_tuple());
  }
  const auto repeats = [](const Value& v) { return v.is(Kind::string) || v.is(Kind::list); };
  const auto counts = [](const Value& v) { return v.is(Kind::integer) || v.is(Kind::boolean); };
  if (op == "*" && repeats(a) && counts(b)) return repeat(run, a, b.integer());
  if (op == "*" && counts(a) && repeats(b)) return repeat(run, b, a.integer());
  return mismatch(run, op, a, b);
}

bool contains(Run& run, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::undefined: return false;
    case Kind::string:
      if (!item.is(Kind::string)) {
        run.fail(Code::corrupt, "'in <string>' needs a string on its left, not {}", type_name(item));
        return false;
      }
      run.spend_bytes(container.string().size());
      return find_text(container.string(), item.string()) != std::string::npos;
    case Kind::list:
      return std::any_of(container.list().begin(), container.list().end(),
                         [&](const Value& v) { return run.ok() && equal(run, v, item); });
    case Kind::dict:
      return std::any_of(container.dict().begin(), container.dict().end(),
                         [&](const auto& pair) { return run.ok() && equal(run, pair.first, item); });
    default: run.fail(Code::corrupt, "a value of type {} contains nothing", type_name(container)); return false;
  }
}

}  // namespace sluice::engine::jinja
