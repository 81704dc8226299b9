// The filters after `|`.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>

#include "engine/text/jinja/builtins.h"
#include "engine/text/jinja/strings.h"
#include "engine/text/utf8.h"

namespace sluice::engine::jinja {
namespace {

using Args = const Arguments&;

// Most string filters take anything and work on str(value).
Value with_case(Run& run, const Value& value, Case to) {
  const std::string text = to_text(run, value);
  return run.spend_bytes(16 * text.size()) ? run.text(change_case(text, to)) : Value();
}
Value upper(Run& run, const Value& v, Args) { return with_case(run, v, Case::upper); }
Value lower(Run& run, const Value& v, Args) { return with_case(run, v, Case::lower); }
Value title(Run& run, const Value& v, Args) { return with_case(run, v, Case::title); }
Value capitalize(Run& run, const Value& v, Args) { return with_case(run, v, Case::capitalize); }
Value as_string(Run& run, const Value& v, Args) { return v.is(Kind::string) ? v : run.text(to_text(run, v)); }

Value trim(Run& run, const Value& value, Args a) {
  const Value* characters = a.find(0, "chars");
  const std::string text = to_text(run, value);
  const bool given = characters && characters->is(Kind::string);
  if (!run.spend_bytes(text.size() * (given ? characters->string().size() + 1 : 4))) return {};
  return run.text(std::string(strip(text, given ? &characters->string() : nullptr, true, true)));
}

Value length(Run& run, const Value& value, Args) {
  switch (value.kind()) {
    case Kind::undefined: return int64_t{0};
    case Kind::string:
      return run.spend_bytes(value.string().size()) ? static_cast<int64_t>(count_utf8(value.string())) : Value();
    case Kind::list: return static_cast<int64_t>(value.list().size());
    case Kind::dict: return static_cast<int64_t>(value.dict().size());
    default: return run.fail(Code::corrupt, "a value of type {} has no length", type_name(value));
  }
}

Value or_default(Run& run, const Value& value, Args a) {
  const Value* instead = a.find(0, "default_value");
  const Value* falsy_too = a.find(1, "boolean");
  const bool missing = value.is(Kind::undefined) || (falsy_too && truth(*falsy_too) && !truth(value));
  if (!missing) return value;
  return instead ? *instead : run.text("");
}

// item.a.b for a path "a.b"; numbers index.
Value by_path(Run& run, Value item, std::string_view path) {
  while (run.ok()) {
    const size_t dot = path.find('.');
    const std::string_view part = path.substr(0, dot);
    int64_t index = 0;
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool number = parsed.ec == std::errc() && parsed.ptr == part.data() + part.size();
    item = subscript(run, item, number ? Value(index) : run.text(std::string(part)));
    if (dot == std::string_view::npos) return item;
    path.remove_prefix(dot + 1);
  }
  return {};
}

Value path_of(Run& run, const Value& item, const Value& path) {
  return path.is(Kind::string) ? by_path(run, item, path.string()) : subscript(run, item, path);
}

Value join(Run& run, const Value& value, Args a) {
  const Value* between = a.find(0, "d");
  const Value* path = a.find(1, "attribute");
  const Value items = iterate(run, value);
  const std::string separator = between ? to_text(run, *between) : "";
  std::string out;
  for (size_t i = 0; run.ok() && i < items.list().size(); ++i) {
    if (i > 0) out += separator;
    out += to_text(run, path ? path_of(run, items.list()[i], *path) : items.list()[i]);
    if (!run.spend_bytes(separator.size()) || !run.may_hold(out.size())) return {};
  }
  return run.text(std::move(out));
}

Value first(Run& run, const Value& value, Args) {
  const Value items = iterate(run, value);
  if (!run.ok()) return {};
  return items.list().empty() ? run.undefined("first item of an empty sequence") : items.list().front();
}

Value last(Run& run, const Value& value, Args) {
  const Value items = iterate(run, value);
  if (!run.ok()) return {};
  return items.list().empty() ? run.undefined("last item of an empty sequence") : items.list().back();
}

Value replace_filter(Run& run, const Value& value, Args a) {
  const Value* old = a.find(0, "old");
  const Value* with = a.find(1, "new");
  const Value* count = a.find(2, "count");
  if (!old || !with) return run.fail(Code::corrupt, "replace needs what to replace and with what");
  Arguments call;
  call.positional = {run.text(to_text(run, *old)), run.text(to_text(run, *with))};
  if (count && !count->is(Kind::none)) call.positional.push_back(*count);
  return run.ok() ? call_method(run, as_string(run, value, a), "replace", call) : Value();
}

Value as_list(Run& run, const Value& value, Args) {
  const Value items = iterate(run, value);
  return run.ok() ? run.list(items.list()) : Value();
}

Value reverse(Run& run, const Value& value, Args) {
  const Value items = iterate(run, value);
  if (!run.ok()) return {};
  Items reversed(items.list().rbegin(), items.list().rend());
  if (!value.is(Kind::string)) return run.list(std::move(reversed));
  std::string out;
  for (const Value& c : reversed) out += c.string();
  return run.text(std::move(out));
}

Value as_integer(Run& run, const Value& value, Args a) {
  const Value* fallback = a.find(0, "default");
  if (value.is(Kind::integer) || value.is(Kind::boolean)) return value.integer();
  double number = NAN;
  if (value.is(Kind::real)) number = value.real();
  if (value.is(Kind::string)) {
    const std::string_view text = strip(value.string(), nullptr, true, true);
    const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
    const char* end = text.data() + text.size();
    int64_t parsed = 0;
    if (const auto r = std::from_chars(begin, end, parsed); r.ec == std::errc() && r.ptr == end) return parsed;
    if (const auto r = std::from_chars(begin, end, number); r.ec != std::errc() || r.ptr != end) number = NAN;
  }
  if (std::isfinite(number) && std::abs(number) < 9e18) return static_cast<int64_t>(number);
  if (value.is(Kind::undefined)) return run.fail(Code::corrupt, "'{}' is undefined", value.missing_name());
  return fallback ? *fallback : Value(int64_t{0});
}

Value as_real(Run& run, const Value& value, Args a) {
  const Value* fallback = a.find(0, "default");
  if (value.is_number()) return value.real();
  if (value.is(Kind::undefined)) return run.fail(Code::corrupt, "'{}' is undefined", value.missing_name());
  if (value.is(Kind::string)) {
    const std::string_view text = strip(value.string(), nullptr, true, true);
    const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
    double parsed = 0;
    const auto r = std::from_chars(begin, text.data() + text.size(), parsed);
    if (r.ec == std::errc() && r.ptr == text.data() + text.size()) return parsed;
  }
  return fallback ? *fallback : Value(0.0);
}

Value absolute(Run& run, const Value& value, Args) {
  if (value.is(Kind::real)) return std::abs(value.real());
  if (value.is_number()) return value.integer() < 0 ? arithmetic(run, "-", int64_t{0}, value) : Value(value.integer());
  return run.fail(Code::corrupt, "abs of a value of type {}", type_name(value));
}

Value tojson(Run& run, const Value& value, Args a) {
  const Value* indent = a.find(0, "indent");
  const Value* sorted = a.find(SIZE_MAX, "sort_keys");
  const Value* ascii = a.find(SIZE_MAX, "ensure_ascii");
  if (ascii && truth(*ascii)) return run.fail(Code::unsupported, "tojson with ensure_ascii is not implemented");
  if (a.find(SIZE_MAX, "separators")) return run.fail(Code::unsupported, "tojson with separators is not implemented");
  return to_json(run, value, indent && indent->is(Kind::integer) ? indent->integer() : -1, sorted && truth(*sorted));
}

Value map(Run& run, const Value& value, Args a) {
  const Value* path = a.find(SIZE_MAX, "attribute");
  const Value* fallback = a.find(SIZE_MAX, "default");
  if (!path && (a.positional.empty() || !a.positional[0].is(Kind::string))) {
    return run.fail(Code::corrupt, "map needs an attribute or the name of a filter");
  }
  Arguments rest;
  if (!path) rest.positional.assign(a.positional.begin() + 1, a.positional.end());
  const Value items = iterate(run, value);
  Items out;
  for (size_t i = 0; run.ok() && i < items.list().size(); ++i) {
    const Value& item = items.list()[i];
    Value mapped = path ? path_of(run, item, *path) : apply_filter(run, a.positional[0].string(), item, rest);
    if (path && fallback && mapped.is(Kind::undefined)) mapped = *fallback;
    out.push_back(std::move(mapped));
  }
  return run.list(std::move(out));
}

// select, reject, selectattr, rejectattr: the items for which a test holds, or does not.
Value choose(Run& run, const Value& value, Args a, bool by_attribute, bool wanted) {
  const size_t n_path = by_attribute ? 1 : 0;
  if (a.positional.size() < n_path) return run.fail(Code::corrupt, "selectattr needs the name of an attribute");
  const bool has_test = a.positional.size() > n_path;
  if (has_test && !a.positional[n_path].is(Kind::string))
    return run.fail(Code::corrupt, "the name of a test is no string");
  Arguments rest;
  if (has_test)
    rest.positional.assign(a.positional.begin() + static_cast<std::ptrdiff_t>(n_path) + 1, a.positional.end());
  const Value items = iterate(run, value);
  Items out;
  for (size_t i = 0; run.ok() && i < items.list().size(); ++i) {
    const Value& item = items.list()[i];
    const Value tested = by_attribute ? path_of(run, item, a.positional[0]) : item;
    const bool holds = has_test ? apply_test(run, a.positional[n_path].string(), tested, rest) : truth(tested);
    if (holds == wanted) out.push_back(item);
  }
  return run.list(std::move(out));
}
Value select(Run& run, const Value& v, Args a) { return choose(run, v, a, false, true); }
Value reject(Run& run, const Value& v, Args a) { return choose(run, v, a, false, false); }
Value selectattr(Run& run, const Value& v, Args a) { return choose(run, v, a, true, true); }
Value rejectattr(Run& run, const Value& v, Args a) { return choose(run, v, a, true, false); }

Value items_of(Run& run, const Value& value, Args a) {
  if (value.is(Kind::undefined)) return run.list({});
  if (value.is(Kind::dict)) return call_method(run, value, "items", a);
  return run.fail(Code::corrupt, "items of a value of type {}", type_name(value));
}

// What sort and unique compare: strings without regard to case, unless asked.
Value sort_key(Run& run, const Value& item, const Value* path, bool case_sensitive) {
  Value key = path ? path_of(run, item, *path) : item;
  if (!case_sensitive && key.is(Kind::string)) key = with_case(run, key, Case::lower);
  return key;
}

Value sort_by(Run& run, Items items, const std::function<Value(const Value&)>& key_of, bool descending) {
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : items) {
    Value key = key_of(item);
    keyed.emplace_back(std::move(key), std::move(item));
  }
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    if (!run.ok()) return false;
    return descending ? compare(run, b.first, a.first) < 0 : compare(run, a.first, b.first) < 0;
  });
  Items out;
  for (auto& [key, item] : keyed) out.push_back(std::move(item));
  return run.list(std::move(out));
}

Value sort(Run& run, const Value& value, Args a) {
  const Value* descending = a.find(0, "reverse");
  const Value* exact = a.find(1, "case_sensitive");
  const Value* path = a.find(2, "attribute");
  const Value items = iterate(run, value);
  if (!run.ok()) return {};
  const auto key = [&](const Value& item) { return sort_key(run, item, path, exact && truth(*exact)); };
  return sort_by(run, items.list(), key, descending && truth(*descending));
}

Value dictsort(Run& run, const Value& value, Args a) {
  const Value* exact = a.find(0, "case_sensitive");
  const Value* by = a.find(1, "by");
  const Value* descending = a.find(2, "reverse");
  const Value pairs = items_of(run, value, {});
  if (!run.ok()) return {};
  const Value position = int64_t{by && by->is(Kind::string) && by->string() == "value"};
  const auto key = [&](const Value& pair) { return sort_key(run, pair, &position, exact && truth(*exact)); };
  return sort_by(run, pairs.list(), key, descending && truth(*descending));
}

Value unique(Run& run, const Value& value, Args a) {
  const Value* exact = a.find(0, "case_sensitive");
  const Value* path = a.find(1, "attribute");
  const Value items = iterate(run, value);
  Items out, keys;
  for (size_t i = 0; run.ok() && i < items.list().size(); ++i) {
    Value key = sort_key(run, items.list()[i], path, exact && truth(*exact));
    if (std::any_of(keys.begin(), keys.end(), [&](const Value& k) { return equal(run, k, key); })) continue;
    keys.push_back(std::move(key));
    out.push_back(items.list()[i]);
  }
  return run.list(std::move(out));
}

Value extreme(Run& run, const Value& value, Args a, bool greatest) {
  const Value* exact = a.find(0, "case_sensitive");
  const Value* path = a.find(1, "attribute");
  const Value items = iterate(run, value);
  Value best, best_key;
  for (size_t i = 0; run.ok() && i < items.list().size(); ++i) {
    Value key = sort_key(run, items.list()[i], path, exact && truth(*exact));
    const int order = i == 0 ? 0 : compare(run, key, best_key);
    if (i > 0 && (greatest ? order <= 0 : order >= 0)) continue;
    best = items.list()[i];
    best_key = std::move(key);
  }
  return best;
}
Value min(Run& run, const Value& v, Args a) { return extreme(run, v, a, false); }
Value max(Run& run, const Value& v, Args a) { return extreme(run, v, a, true); }

Value sum(Run& run, const Value& value, Args a) {
  const Value* path = a.find(0, "attribute");
  const Value* start = a.find(1, "start");
  Value total = start ? *start : Value(int64_t{0});
  const Value items = iterate(run, value);
  for (size_t i = 0; run.ok() && i < items.list().size(); ++i) {
    const Value& item = items.list()[i];
    total = arithmetic(run, "+", total, path && !path->is(Kind::none) ? path_of(run, item, *path) : item);
  }
  return total;
}

Value indent(Run& run, const Value& value, Args a) {
  const Value* width = a.find(0, "width");
  const Value* first_too = a.find(1, "first");
  const Value* blank_too = a.find(2, "blank");
  if (width && width->is(Kind::integer) && (width->integer() < 0 || width->integer() > 256)) {
    return run.fail(Code::unsupported, "an indent of {}", width->integer());
  }
  const std::string prefix =
      width && width->is(Kind::string)
          ? width->string()
          : std::string(width && width->is(Kind::integer) ? static_cast<size_t>(width->integer()) : 4, ' ');
  const std::string text = to_text(run, value);
  std::string out;
  bool at_first = true;
  for (size_t at = 0; at <= text.size() && run.ok(); at_first = false) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const bool blank = end == at;
    const bool wanted = at_first ? first_too && truth(*first_too) : !blank || (blank_too && truth(*blank_too));
    if (wanted) out += prefix;
    out.append(text, at, end - at + (end < text.size() ? 1 : 0));
    if (!run.spend_bytes(prefix.size()) || !run.may_hold(out.size())) return {};
    at = end + 1;
  }
  return run.text(std::move(out));
}

Value escape(Run& run, const Value& value, Args) {
  std::string out;
  for (const char c : to_text(run, value)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '\'': out += "&#39;"; break;
      case '"': out += "&#34;"; break;
      default: out += c;
    }
  }
  return run.text(std::move(out));
}

Value round(Run& run, const Value& value, Args a) {
  const Value* precision = a.find(0, "precision");
  const Value* method = a.find(1, "method");
  if (!value.is_number()) return run.fail(Code::corrupt, "round of a value of type {}", type_name(value));
  if (method || (precision && !(precision->is(Kind::integer) && precision->integer() == 0))) {
    return run.fail(Code::unsupported, "round with a precision or a method is not implemented");
  }
  return std::nearbyint(value.real());
}

struct Filter {
  std::string_view name;
  Value (*apply)(Run& run, const Value& value, Args arguments);
};
constexpr Filter filters[] = {
    {"trim", trim},
    {"length", length},
    {"count", length},
    {"upper", upper},
    {"lower", lower},
    {"title", title},
    {"capitalize", capitalize},
    {"default", or_default},
    {"d", or_default},
    {"join", join},
    {"first", first},
    {"last", last},
    {"replace", replace_filter},
    {"list", as_list},
    {"reverse", reverse},
    {"string", as_string},
    {"safe", as_string},
    {"int", as_integer},
    {"float", as_real},
    {"abs", absolute},
    {"tojson", tojson},
    {"map", map},
    {"select", select},
    {"reject", reject},
    {"selectattr", selectattr},
    {"rejectattr", rejectattr},
    {"items", items_of},
    {"sort", sort},
    {"dictsort", dictsort},
    {"unique", unique},
    {"min", min},
    {"max", max},
    {"sum", sum},
    {"indent", indent},
    {"escape", escape},
    {"e", escape},
    {"round", round},
};

}  // namespace

Value apply_filter(Run& run, std::string_view name, const Value& value, const Arguments& arguments) {
  const Deeper deeper(run);
  if (!deeper || !run.spend(1)) return {};
  for (const Filter& filter : filters) {
    if (filter.name == name) return filter.apply(run, value, arguments);
  }
  return run.fail(Code::unsupported, "the filter \"{}\" is not implemented", name.substr(0, 64));
}

}  // namespace sluice::engine::jinja
