// Methods of strings, lists and dicts, and the global functions.
#include <algorithm>
#include <array>
#include <utility>

#include "engine/text/jinja/builtins.h"
#include "engine/text/jinja/strings.h"
#include "engine/text/utf8.h"

namespace sluice::engine::jinja {
namespace {

using Args = const Arguments&;
constexpr int64_t max_range = 100'000;  // as Jinja's sandbox has it

// The string argument at `index`, or null; fails on another type.
const std::string* string_at(Run& run, Args a, size_t index, std::string_view name) {
  const Value* value = a.find(index, name);
  if (!value || value->is(Kind::none)) return nullptr;
  if (value->is(Kind::string)) return &value->string();
  run.fail(Code::corrupt, "{} must be a string, not {}", name, type_name(*value));
  return nullptr;
}

Value stripped(Run& run, const Value& v, Args a, bool left, bool right) {
  const std::string* characters = string_at(run, a, 0, "chars");
  if (!run.spend_bytes(v.string().size() * (characters ? characters->size() + 1 : 4))) return {};
  return run.text(std::string(strip(v.string(), characters, left, right)));
}
Value strip_method(Run& run, const Value& v, Args a) { return stripped(run, v, a, true, true); }
Value lstrip(Run& run, const Value& v, Args a) { return stripped(run, v, a, true, false); }
Value rstrip(Run& run, const Value& v, Args a) { return stripped(run, v, a, false, true); }

Value with_case(Run& run, const Value& v, Case to) {
  return run.spend_bytes(16 * v.string().size()) ? run.text(change_case(v.string(), to)) : Value();
}
Value upper(Run& run, const Value& v, Args) { return with_case(run, v, Case::upper); }
Value lower(Run& run, const Value& v, Args) { return with_case(run, v, Case::lower); }
Value title(Run& run, const Value& v, Args) { return with_case(run, v, Case::title); }
Value capitalize(Run& run, const Value& v, Args) { return with_case(run, v, Case::capitalize); }

Value starts_or_ends(Run& run, const Value& v, Args a, bool start) {
  if (a.positional.size() != 1) return run.fail(Code::unsupported, "startswith and endswith take one argument here");
  const Value& wanted = a.positional[0];
  const auto fits = [&](const Value& part) {
    if (!part.is(Kind::string))
      run.fail(Code::corrupt, "startswith and endswith need a string, not {}", type_name(part));
    return run.ok() && run.spend_bytes(part.string().size()) &&
           (start ? v.string().starts_with(part.string()) : v.string().ends_with(part.string()));
  };
  if (!wanted.is_tuple()) return fits(wanted);
  return std::any_of(wanted.list().begin(), wanted.list().end(), fits);
}
Value startswith(Run& run, const Value& v, Args a) { return starts_or_ends(run, v, a, true); }
Value endswith(Run& run, const Value& v, Args a) { return starts_or_ends(run, v, a, false); }

Value without_prefix(Run& run, const Value& v, Args a) {
  const std::string* part = string_at(run, a, 0, "prefix");
  const bool has = part && run.spend_bytes(part->size()) && v.string().starts_with(*part);
  return has ? run.text(v.string().substr(part->size())) : v;
}
Value without_suffix(Run& run, const Value& v, Args a) {
  const std::string* part = string_at(run, a, 0, "suffix");
  const bool has = part && run.spend_bytes(part->size()) && v.string().ends_with(*part);
  return has ? run.text(v.string().substr(0, v.string().size() - part->size())) : v;
}

int64_t integer_at(Run& run, Args a, size_t index, std::string_view name, int64_t fallback) {
  const Value* value = a.find(index, name);
  if (!value) return fallback;
  if (value->is(Kind::integer)) return value->integer();
  run.fail(Code::corrupt, "{} must be an integer, not {}", name, type_name(*value));
  return fallback;
}

Value replace_method(Run& run, const Value& v, Args a) {
  const std::string* old = string_at(run, a, 0, "old");
  const std::string* with = string_at(run, a, 1, "new");
  const int64_t count = integer_at(run, a, 2, "count", -1);
  if (!old || !with) return run.fail(Code::corrupt, "replace needs two strings");
  // The result is at most this long; checked before it is made.
  const uint64_t places = v.string().size() / std::max<size_t>(old->size(), 1) + 1;
  const uint64_t bound = v.string().size() + (with->size() > old->size() ? places * (with->size() - old->size()) : 0);
  if (!run.spend_bytes(2 * v.string().size())) return {};
  if (bound > (uint64_t{1} << 20)) {
    uint64_t found = old->empty() ? places : 0;
    for (size_t at = 0; !old->empty() && (at = find_text(v.string(), *old, at)) != std::string::npos; at += old->size())
      ++found;
    if (!run.may_hold(v.string().size() + found * with->size())) return {};
  }
  return run.text(replace(v.string(), *old, *with, count));
}

// As std::string_view::rfind; pays for every byte that it compares.
size_t find_last(Run& run, std::string_view text, std::string_view part) {
  if (part.size() > text.size()) return std::string_view::npos;
  uint64_t compared = 0;
  for (size_t at = text.size() - part.size();; --at) {
    const auto differ = std::mismatch(part.begin(), part.end(), text.begin() + static_cast<std::ptrdiff_t>(at)).first;
    if (differ == part.end()) return at;
    compared += 8 + static_cast<uint64_t>(differ - part.begin());
    if (compared > 4096 && !run.spend_bytes(std::exchange(compared, 0))) return std::string_view::npos;
    if (at == 0) return std::string_view::npos;
  }
}

// split() by runs of white space; at most `limit` cuts (-1: any number).
Items split_white_space(Run& run, std::string_view text, int64_t limit) {
  Items parts;
  text = strip(text, nullptr, true, false);
  while (!text.empty() && run.ok()) {
    size_t end = 0;
    while (end < text.size() && !is_space(decode_utf8(text, end).code_point)) end += decode_utf8(text, end).bytes;
    const bool rest = limit >= 0 && static_cast<int64_t>(parts.size()) == limit;
    parts.push_back(run.text(std::string(rest ? strip(text, nullptr, false, true) : text.substr(0, end))));
    text = rest ? std::string_view() : strip(text.substr(end), nullptr, true, false);
  }
  return parts;
}

Items split_at(Run& run, std::string_view text, std::string_view separator, int64_t limit) {
  Items parts;
  while (run.ok()) {
    const size_t at =
        limit >= 0 && static_cast<int64_t>(parts.size()) == limit ? std::string_view::npos : find_text(text, separator);
    parts.push_back(run.text(std::string(text.substr(0, at))));
    if (at == std::string_view::npos) break;
    text.remove_prefix(at + separator.size());
  }
  return parts;
}

Items split_at_from_right(Run& run, std::string_view text, std::string_view separator, int64_t limit) {
  Items parts;
  while (run.ok()) {
    const size_t at = limit >= 0 && static_cast<int64_t>(parts.size()) == limit ? std::string_view::npos
                                                                                : find_last(run, text, separator);
    const size_t from = at == std::string_view::npos ? 0 : at + separator.size();
    parts.push_back(run.text(std::string(text.substr(from))));
    if (at == std::string_view::npos) break;
    text = text.substr(0, at);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Value split_either(Run& run, const Value& v, Args a, bool right) {
  const std::string* separator = string_at(run, a, 0, "sep");
  const int64_t limit = integer_at(run, a, 1, "maxsplit", -1);
  if (!run.ok() || !run.spend_bytes(2 * v.string().size())) return {};
  if (separator && separator->empty()) return run.fail(Code::corrupt, "split by an empty string");
  if (!separator && right && limit >= 0) return run.fail(Code::unsupported, "rsplit by white space with a limit");
  if (!separator) return run.list(split_white_space(run, v.string(), limit));
  return run.list((right ? split_at_from_right : split_at)(run, v.string(), *separator, limit));
}
Value split(Run& run, const Value& v, Args a) { return split_either(run, v, a, false); }
Value rsplit(Run& run, const Value& v, Args a) { return split_either(run, v, a, true); }

Value splitlines(Run& run, const Value& v, Args a) {
  if (a.size() > 0) return run.fail(Code::unsupported, "splitlines with arguments is not implemented");
  Items lines;
  std::string_view text = v.string();
  while (!text.empty() && run.spend(1)) {
    const size_t end = std::min(text.find_first_of("\n\r\v\f\x1c\x1d\x1e"), text.size());
    lines.push_back(run.text(std::string(text.substr(0, end))));
    const size_t ending = text.substr(end).starts_with("\r\n") ? 2 : 1;
    text.remove_prefix(std::min(text.size(), end + ending));
  }
  return run.list(std::move(lines));
}

Value find_either(Run& run, const Value& v, Args a, bool right) {
  const std::string* part = string_at(run, a, 0, "sub");
  if (!part || a.size() != 1) return run.fail(Code::unsupported, "find takes one string here");
  if (!run.spend_bytes(2 * v.string().size())) return {};
  const size_t at = right ? find_last(run, v.string(), *part) : find_text(v.string(), *part);
  return at == std::string::npos ? int64_t{-1}
                                 : static_cast<int64_t>(count_utf8(std::string_view(v.string()).substr(0, at)));
}
Value find(Run& run, const Value& v, Args a) { return find_either(run, v, a, false); }
Value rfind(Run& run, const Value& v, Args a) { return find_either(run, v, a, true); }

Value count_text(Run& run, const Value& v, Args a) {
  const std::string* part = string_at(run, a, 0, "sub");
  if (!part || part->empty()) return run.fail(Code::unsupported, "count takes one string here");
  if (!run.spend_bytes(v.string().size())) return {};
  int64_t n = 0;
  for (size_t at = 0; (at = find_text(v.string(), *part, at)) != std::string::npos; at += part->size()) ++n;
  return n;
}

Value join(Run& run, const Value& v, Args a) {
  if (a.positional.size() != 1) return run.fail(Code::corrupt, "join takes one argument");
  Arguments call;
  call.positional.push_back(v);
  return apply_filter(run, "join", a.positional[0], call);
}

Value all_characters(Run& run, const Value& v, bool (*fits)(char)) {
  if (!run.spend_bytes(v.string().size())) return {};
  return !v.string().empty() && std::all_of(v.string().begin(), v.string().end(), fits);
}
Value isdigit(Run& run, const Value& v, Args) {
  return all_characters(run, v, [](char c) { return c >= '0' && c <= '9'; });
}
Value isspace(Run& run, const Value& v, Args) {
  if (!run.spend_bytes(v.string().size())) return {};
  return !v.string().empty() && run.spend_bytes(4 * v.string().size()) &&
         strip(v.string(), nullptr, true, false).empty();
}

Value dict_items(Run& run, const Value& v, Args) {
  Items items;
  for (const auto& [key, value] : v.dict()) items.push_back(run.list({key, value}, true));
  return run.list(std::move(items));
}
Value dict_keys(Run& run, const Value& v, Args) { return iterate(run, v); }
Value dict_values(Run& run, const Value& v, Args) {
  Items items;
  for (const auto& [key, value] : v.dict()) items.push_back(value);
  return run.list(std::move(items));
}
Value dict_get(Run& run, const Value& v, Args a) {
  if (a.positional.empty()) return run.fail(Code::corrupt, "get needs a key");
  for (const auto& [key, value] : v.dict()) {
    if (equal(run, key, a.positional[0])) return value;
  }
  const Value* fallback = a.find(1, "default");
  return fallback ? *fallback : Value(None{});
}
Value dict_copy(Run&, const Value& v, Args) { return v; }

Value list_index(Run& run, const Value& v, Args a) {
  if (a.positional.size() != 1) return run.fail(Code::unsupported, "index takes one argument here");
  for (size_t i = 0; i < v.list().size() && run.ok(); ++i) {
    if (equal(run, v.list()[i], a.positional[0])) return static_cast<int64_t>(i);
  }
  return run.fail(Code::corrupt, "index: the value is not in the list");
}
Value list_count(Run& run, const Value& v, Args a) {
  if (a.positional.size() != 1) return run.fail(Code::corrupt, "count takes one argument");
  return static_cast<int64_t>(std::count_if(v.list().begin(), v.list().end(),
                                            [&](const Value& item) { return equal(run, item, a.positional[0]); }));
}

// Jinja's sandbox refuses what would change a list or a dict.
Value refuse(Run& run, const Value& v, Args) { return run.fail(Code::corrupt, "a {} cannot be changed", type_name(v)); }

Value loop_cycle(Run& run, const Value& v, Args a) {
  if (a.positional.empty()) return run.fail(Code::corrupt, "loop.cycle needs items");
  return a.positional[v.loop().index % a.positional.size()];
}

struct Method {
  Kind of;
  std::string_view name;
  Value (*call)(Run& run, const Value& self, Args arguments);
};
constexpr Method methods[] = {
    {Kind::string, "strip", strip_method},
    {Kind::string, "lstrip", lstrip},
    {Kind::string, "rstrip", rstrip},
    {Kind::string, "upper", upper},
    {Kind::string, "lower", lower},
    {Kind::string, "title", title},
    {Kind::string, "capitalize", capitalize},
    {Kind::string, "startswith", startswith},
    {Kind::string, "endswith", endswith},
    {Kind::string, "removeprefix", without_prefix},
    {Kind::string, "removesuffix", without_suffix},
    {Kind::string, "replace", replace_method},
    {Kind::string, "split", split},
    {Kind::string, "rsplit", rsplit},
    {Kind::string, "splitlines", splitlines},
    {Kind::string, "find", find},
    {Kind::string, "rfind", rfind},
    {Kind::string, "count", count_text},
    {Kind::string, "join", join},
    {Kind::string, "isdigit", isdigit},
    {Kind::string, "isspace", isspace},
    {Kind::dict, "items", dict_items},
    {Kind::dict, "keys", dict_keys},
    {Kind::dict, "values", dict_values},
    {Kind::dict, "get", dict_get},
    {Kind::dict, "copy", dict_copy},
    {Kind::dict, "update", refuse},
    {Kind::dict, "pop", refuse},
    {Kind::dict, "setdefault", refuse},
    {Kind::dict, "clear", refuse},
    {Kind::list, "index", list_index},
    {Kind::list, "count", list_count},
    {Kind::list, "append", refuse},
    {Kind::list, "extend", refuse},
    {Kind::list, "insert", refuse},
    {Kind::list, "pop", refuse},
    {Kind::list, "remove", refuse},
    {Kind::list, "sort", refuse},
    {Kind::list, "reverse", refuse},
    {Kind::loop, "cycle", loop_cycle},
};

__extension__ typedef __int128 Wide;  // differences and products of 64-bit bounds

Value range(Run& run, Args a) {
  int64_t bounds[3] = {0, 0, 1};
  if (a.positional.empty() || a.positional.size() > 3)
    return run.fail(Code::corrupt, "range takes one to three integers");
  for (size_t i = 0; i < a.positional.size(); ++i) {
    if (!a.positional[i].is(Kind::integer))
      return run.fail(Code::corrupt, "range of a value of type {}", type_name(a.positional[i]));
    bounds[a.positional.size() == 1 ? 1 : i] = a.positional[i].integer();
  }
  const Wide from = bounds[0], to = bounds[1], step = bounds[2];
  if (step == 0) return run.fail(Code::corrupt, "range with a step of 0");
  const Wide n = step > 0 ? (to - from + step - 1) / step : (from - to - step - 1) / -step;
  if (n > max_range) return run.fail(Code::over_budget, "a range of more than {} numbers", max_range);
  if (n > 0 && (!run.spend(static_cast<uint64_t>(n)) || !run.may_hold(static_cast<uint64_t>(n) * sizeof(Value))))
    return {};
  Items items;
  for (Wide i = 0; i < n; ++i) items.push_back(static_cast<int64_t>(from + i * step));
  return run.list(std::move(items));
}

Value make_dict(Run& run, Args a) {
  Pairs pairs;
  if (!a.positional.empty() && a.positional[0].is(Kind::dict)) pairs = a.positional[0].dict();
  for (const auto& [name, value] : a.named) {
    if (!run.spend(1 + pairs.size() / 8)) return {};
    const auto same = [&](const auto& pair) { return pair.first.is(Kind::string) && pair.first.string() == name; };
    std::erase_if(pairs, same);
    pairs.emplace_back(run.text(std::string(name)), value);
  }
  return run.dict(std::move(pairs));
}

Value make_namespace(Run& run, Args a) {
  const Value pairs = make_dict(run, a);
  const Value made = run.space();
  if (!run.ok()) return {};
  for (const auto& [key, value] : pairs.dict()) {
    if (key.is(Kind::string)) made.space().attributes.emplace_back(key.string(), value);
  }
  return made;
}

Value raise_exception(Run& run, Args a) {
  const Value* message = a.find(0, "message");
  return run.fail_with(Code::invalid_argument, message ? to_text(run, *message).substr(0, 1024) : "raise_exception");
}

Value strftime_now(Run& run, Args a, const std::tm* now) {
  const std::string* format = string_at(run, a, 0, "format");
  if (!format) return run.fail(Code::corrupt, "strftime_now needs a format");
  if (!now) return run.fail(Code::invalid_argument, "strftime_now: no time was given");
  if (!run.spend(1000)) return {};
  char text[256];
  const size_t n = std::strftime(text, sizeof text, format->substr(0, 128).c_str(), now);
  return run.text(std::string(text, n));
}

constexpr std::string_view functions[] = {"range", "namespace", "dict", "raise_exception", "strftime_now"};

}  // namespace

std::string_view find_method(const Value& value, std::string_view name) {
  for (const Method& method : methods) {
    if (method.of == value.kind() && method.name == name) return method.name;
  }
  return {};
}

Value call_method(Run& run, const Value& value, std::string_view name, const Arguments& arguments) {
  const Deeper deeper(run);
  if (!deeper || !run.spend(1)) return {};
  for (const Method& method : methods) {
    if (method.of == value.kind() && method.name == name) return method.call(run, value, arguments);
  }
  return run.fail(Code::unsupported, "{} has no method \"{}\"", type_name(value), name);
}

bool is_function(std::string_view name) {
  return std::find(std::begin(functions), std::end(functions), name) != std::end(functions);
}

Value call_function(Run& run, std::string_view name, const Arguments& arguments, const std::tm* now) {
  if (!run.spend(1)) return {};
  if (name == "range") return range(run, arguments);
  if (name == "namespace") return make_namespace(run, arguments);
  if (name == "dict") return make_dict(run, arguments);
  if (name == "raise_exception") return raise_exception(run, arguments);
  if (name == "strftime_now") return strftime_now(run, arguments, now);
  return run.fail(Code::corrupt, "'{}' is not a function", name);
}

}  // namespace sluice::engine::jinja
