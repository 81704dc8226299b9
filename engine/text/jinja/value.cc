#include "engine/text/jinja/value.h"

#include <algorithm>
#include <cmath>

#include "engine/text/jinja/builtins.h"
#include "engine/text/jinja/strings.h"
#include "engine/text/utf8.h"

namespace sluice::engine::jinja {
namespace {

constexpr uint32_t max_value_depth = 64;
constexpr int max_eval_depth = 400;

template <class Range, class DepthOf>
uint32_t depth_over(const Range& range, DepthOf depth_of) {
  uint32_t depth = 0;
  for (const auto& item : range) depth = std::max(depth, depth_of(item));
  return depth + 1;
}

Value loop_attribute(const Value& value, std::string_view name, Run& run) {
  const Loop& loop = value.loop();
  const auto index = static_cast<int64_t>(loop.index);
  const auto size = static_cast<int64_t>(loop.items.list().size());
  if (name == "index") return index + 1;
  if (name == "index0") return index;
  if (name == "revindex") return size - index;
  if (name == "revindex0") return size - index - 1;
  if (name == "first") return index == 0;
  if (name == "last") return index + 1 == size;
  if (name == "length") return size;
  if (name == "depth") return int64_t{1};  // of recursion, which is not implemented
  if (name == "depth0") return int64_t{0};
  if (name == "previtem" && index > 0) return loop.items.list()[loop.index - 1];
  if (name == "nextitem" && index + 1 < size) return loop.items.list()[loop.index + 1];
  if (name == "cycle") return Function{"cycle"};
  return run.undefined(name);
}

Value dict_item(Run& run, const Value& value, const Value& key) {
  if (key.is(Kind::string)) {
    if (!run.spend(1 + value.dict().size() / 8)) return {};
    const Value* item = value.item(key.string());
    return item ? *item : run.undefined(key.string());
  }
  for (const auto& [k, v] : value.dict()) {
    if (!run.spend(1)) return {};
    if (equal(run, k, key)) return v;
  }
  return run.undefined("key");
}

}  // namespace

const Items& Value::list() const { return std::get<std::shared_ptr<const List>>(v_)->items; }
bool Value::is_tuple() const { return is(Kind::list) && std::get<std::shared_ptr<const List>>(v_)->tuple; }
const Pairs& Value::dict() const { return std::get<std::shared_ptr<const Dict>>(v_)->pairs; }

std::string_view Value::missing_name() const {
  const auto& name = std::get<Undefined>(v_).name;
  return name ? std::string_view(name->bytes) : std::string_view("value");
}

const Value* Value::item(std::string_view key) const {
  for (const auto& [k, v] : dict()) {
    if (k.is(Kind::string) && k.string() == key) return &v;
  }
  return nullptr;
}

uint32_t Value::depth() const {
  if (is(Kind::list)) return std::get<std::shared_ptr<const List>>(v_)->depth;
  return is(Kind::dict) ? std::get<std::shared_ptr<const Dict>>(v_)->depth : 0;
}

std::string_view type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined: return "undefined";
    case Kind::none: return "NoneType";
    case Kind::boolean: return "bool";
    case Kind::integer: return "int";
    case Kind::real: return "float";
    case Kind::string: return "str";
    case Kind::list: return value.is_tuple() ? "tuple" : "list";
    case Kind::dict: return "dict";
    case Kind::space: return "namespace";
    case Kind::loop: return "loop";
    case Kind::macro: return "macro";
    case Kind::function: return "function";
  }
  return "?";
}

bool truth(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
    case Kind::none: return false;
    case Kind::boolean:
    case Kind::integer: return value.integer() != 0;
    case Kind::real: return value.real() != 0;
    case Kind::string: return !value.string().empty();
    case Kind::list: return !value.list().empty();
    case Kind::dict: return !value.dict().empty();
    default: return true;
  }
}

const Value* Arguments::find(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

Run::~Run() {
  // Namespaces may hold each other's values; none of them owns another.
  for (auto& space : spaces_) space->attributes.clear();
}

Value Run::fail_with(Code code, std::string message) {
  if (status_.ok()) status_ = error(code, "chat template, line {}: {}", line, message);
  return {};
}

bool Run::spend(uint64_t steps) {
  if (!ok()) return false;
  if (steps <= steps_left_) {
    steps_left_ -= steps;
    return true;
  }
  fail(Code::over_budget, "it runs for too long");
  return false;
}

bool Run::may_hold(uint64_t bytes) {
  if (!ok()) return false;
  if (bytes <= memory_.limit && memory_.used <= memory_.limit - bytes) return true;
  fail(Code::over_budget, "it needs more than {} bytes of memory", memory_.limit);
  return false;
}

Value Run::text(std::string s) {
  if (!spend_bytes(s.size()) || !may_hold(s.capacity())) return {};
  return std::make_shared<const Text>(std::move(s), &memory_);
}

Value Run::list(Items items, bool tuple) {
  const uint32_t nesting = depth_over(items, [](const Value& v) { return v.depth(); });
  if (nesting > max_value_depth) return fail(Code::over_budget, "lists are nested deeper than {}", max_value_depth);
  if (!spend(1 + items.size()) || !may_hold(items.capacity() * sizeof(Value))) return {};
  return std::make_shared<const List>(std::move(items), tuple, nesting, &memory_);
}

Value Run::dict(Pairs pairs) {
  const uint32_t nesting = depth_over(pairs, [](const auto& p) { return std::max(p.first.depth(), p.second.depth()); });
  if (nesting > max_value_depth) return fail(Code::over_budget, "dicts are nested deeper than {}", max_value_depth);
  if (!spend(1 + pairs.size()) || !may_hold(pairs.capacity() * 2 * sizeof(Value))) return {};
  return std::make_shared<const Dict>(std::move(pairs), nesting, &memory_);
}

Value Run::space() {
  if (!spend(4) || !may_hold(sizeof(Space))) return {};
  memory_.used += sizeof(Space);
  spaces_.push_back(std::make_unique<Space>());
  return spaces_.back().get();
}

Value Run::undefined(std::string_view name) {
  std::string shown(name.substr(0, 64));
  if (!spend(2) || !may_hold(shown.capacity() + sizeof(Text))) return {};
  return Undefined{std::make_shared<const Text>(std::move(shown), &memory_)};
}

Deeper::Deeper(Run& run) : run_(run) {
  if (++run_.depth > max_eval_depth) run_.fail(Code::over_budget, "it is nested deeper than {}", max_eval_depth);
}

bool equal(Run& run, const Value& a, const Value& b) {
  const Deeper deeper(run);
  if (!deeper || !run.spend(1)) return false;
  if (a.is_number() && b.is_number()) {
    return a.is(Kind::real) || b.is(Kind::real) ? a.real() == b.real() : a.integer() == b.integer();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::string: return run.spend_bytes(a.string().size()) && a.string() == b.string();
    case Kind::list:
      return a.is_tuple() == b.is_tuple() &&
             std::equal(a.list().begin(), a.list().end(), b.list().begin(), b.list().end(),
                        [&](const Value& x, const Value& y) { return equal(run, x, y); });
    case Kind::dict:
      return a.dict().size() == b.dict().size() && std::all_of(a.dict().begin(), a.dict().end(), [&](const auto& pair) {
               const Value other = dict_item(run, b, pair.first);
               return !other.is(Kind::undefined) && equal(run, pair.second, other);
             });
    case Kind::space: return &a.space() == &b.space();
    case Kind::macro: return &a.macro() == &b.macro();
    case Kind::loop: return &a.loop() == &b.loop();
    case Kind::function: return a.function_name() == b.function_name();
    default: return true;  // undefined and none have one value
  }
}

int compare(Run& run, const Value& a, const Value& b) {
  const Deeper deeper(run);
  if (!deeper || !run.spend(1)) return 0;
  if (a.is_number() && b.is_number()) {
    if (a.is(Kind::real) || b.is(Kind::real)) return a.real() < b.real() ? -1 : a.real() > b.real();
    return a.integer() < b.integer() ? -1 : a.integer() > b.integer();
  }
  if (a.is(Kind::string) && b.is(Kind::string)) {
    run.spend_bytes(std::min(a.string().size(), b.string().size()));
    return a.string().compare(b.string());  // the order of UTF-8 bytes is that of code points
  }
  if (a.is(Kind::list) && b.is(Kind::list)) {
    for (size_t i = 0; i < a.list().size() && i < b.list().size() && run.ok(); ++i) {
      if (!equal(run, a.list()[i], b.list()[i])) return compare(run, a.list()[i], b.list()[i]);
    }
    return a.list().size() < b.list().size() ? -1 : a.list().size() > b.list().size();
  }
  run.fail(Code::corrupt, "{} and {} cannot be ordered", type_name(a), type_name(b));
  return 0;
}

Value iterate(Run& run, const Value& value) {
  Items items;
  switch (value.kind()) {
    case Kind::list: return value;
    case Kind::undefined: break;
    case Kind::dict:
      for (const auto& [k, v] : value.dict()) items.push_back(k);
      break;
    case Kind::string: {
      const std::string& s = value.string();
      if (!run.spend(s.size() * 4) || !run.may_hold(s.size() * (sizeof(Value) + sizeof(Text)))) return {};
      for (size_t at = 0; at < s.size();) {
        const size_t n = decode_utf8(s, at).bytes;
        items.push_back(run.text(s.substr(at, n)));
        at += n;
      }
      break;
    }
    default: return run.fail(Code::corrupt, "a value of type {} cannot be iterated", type_name(value));
  }
  return run.list(std::move(items));
}

Value attribute(Run& run, const Value& value, std::string_view name) {
  switch (value.kind()) {
    case Kind::undefined: return run.fail(Code::corrupt, "'{}' is undefined", value.missing_name());
    case Kind::loop: return loop_attribute(value, name, run);
    case Kind::space:
      if (!run.spend(1 + value.space().attributes.size() / 8)) return {};
      for (const auto& [key, v] : value.space().attributes) {
        if (key == name) return v;
      }
      return run.undefined(name);
    case Kind::dict:
      if (const std::string_view method = find_method(value, name); !method.empty()) return Function{method};
      if (!run.spend(1 + value.dict().size() / 8)) return {};
      if (const Value* item = value.item(name)) return *item;
      return run.undefined(name);
    default:
      if (const std::string_view method = find_method(value, name); !method.empty()) return Function{method};
      return run.undefined(name);
  }
}

Value subscript(Run& run, const Value& value, const Value& key) {
  if (!run.spend(1)) return {};
  if (value.is(Kind::undefined)) return attribute(run, value, "");
  if (value.is(Kind::dict)) {
    const Value item = dict_item(run, value, key);
    if (!item.is(Kind::undefined) || !key.is(Kind::string)) return item;
    return attribute(run, value, key.string());
  }
  if ((value.is(Kind::list) || value.is(Kind::string)) && (key.is(Kind::integer) || key.is(Kind::boolean))) {
    const bool is_list = value.is(Kind::list);
    if (!is_list && !run.spend_bytes(4 * value.string().size())) return {};
    const auto size = static_cast<int64_t>(is_list ? value.list().size() : count_utf8(value.string()));
    const int64_t index = key.integer() < 0 ? key.integer() + size : key.integer();
    if (index < 0 || index >= size) return run.undefined("index");
    if (is_list) return value.list()[static_cast<size_t>(index)];
    return run.text(std::string(character_range(value.string(), index, index + 1)));
  }
  if (key.is(Kind::string)) return attribute(run, value, key.string());
  return run.undefined("item");
}

}  // namespace sluice::engine::jinja
