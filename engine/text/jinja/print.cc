// str(), repr() and tojson.
#include <algorithm>

#include "engine/text/jinja/builtins.h"
#include "engine/text/jinja/strings.h"

namespace sluice::engine::jinja {
namespace {

// Pays for what was appended to `out` since it had `before` bytes.
bool paid(Run& run, const std::string& out, size_t before) {
  return run.spend_bytes(out.size() - before) && run.may_hold(out.size());
}

class JsonWriter {
 public:
  JsonWriter(Run& run, int64_t indent, bool sort_keys) : run_(run), indent_(indent), sort_keys_(sort_keys) {}

  void write(const Value& value, int64_t level) {
    const Deeper deeper(run_);
    const size_t before = out_.size();
    switch (value.kind()) {
      case Kind::none: out_ += "null"; break;
      case Kind::boolean: out_ += value.boolean() ? "true" : "false"; break;
      case Kind::integer: out_ += fmt::to_string(value.integer()); break;
      case Kind::real: write_real(value.real()); break;
      case Kind::string: append_json_string(value.string(), out_); break;
      case Kind::list: write_list(value.list(), level); break;
      case Kind::dict: write_dict(value.dict(), level); break;
      default: run_.fail(Code::corrupt, "tojson: a value of type {} has no JSON form", type_name(value));
    }
    if (value.depth() == 0) paid(run_, out_, before);
  }

  std::string& out() { return out_; }

 private:
  void write_real(double value) {
    const std::string text = real_repr(value);
    out_ += text == "nan" ? "NaN" : text == "inf" ? "Infinity" : text == "-inf" ? "-Infinity" : text;
  }

  void new_line(int64_t level) {
    if (indent_ < 0) return;
    out_ += '\n';
    out_.append(static_cast<size_t>(indent_ * level), ' ');
  }

  void write_list(const Items& items, int64_t level) {
    if (items.empty()) return static_cast<void>(out_ += "[]");
    out_ += '[';
    for (size_t i = 0; i < items.size() && run_.spend(1 + static_cast<uint64_t>(std::max<int64_t>(indent_, 0))); ++i) {
      if (i > 0) out_ += indent_ < 0 ? ", " : ",";
      new_line(level + 1);
      write(items[i], level + 1);
    }
    new_line(level);
    out_ += ']';
  }

  void write_key(const Value& key) {
    if (key.is(Kind::string)) return append_json_string(key.string(), out_);
    out_ += '"';
    if (key.is(Kind::list)) run_.fail(Code::corrupt, "tojson: keys must be str, int, float, bool or None, not tuple");
    write(key, 0);
    out_ += '"';
  }

  void write_dict(const Pairs& pairs, int64_t level) {
    if (pairs.empty()) return static_cast<void>(out_ += "{}");
    std::vector<const std::pair<Value, Value>*> order;
    for (const auto& pair : pairs) order.push_back(&pair);
    if (sort_keys_) {
      std::stable_sort(order.begin(), order.end(),
                       [&](const auto* a, const auto* b) { return compare(run_, a->first, b->first) < 0; });
    }
    out_ += '{';
    for (size_t i = 0; i < order.size() && run_.spend(1 + static_cast<uint64_t>(std::max<int64_t>(indent_, 0))); ++i) {
      if (i > 0) out_ += indent_ < 0 ? ", " : ",";
      new_line(level + 1);
      write_key(order[i]->first);
      out_ += ": ";
      write(order[i]->second, level + 1);
    }
    new_line(level);
    out_ += '}';
  }

  Run& run_;
  int64_t indent_;
  bool sort_keys_;
  std::string out_;
};

void append_list_repr(Run& run, const Value& value, std::string& out) {
  const Items& items = value.list();
  out += value.is_tuple() ? '(' : '[';
  for (size_t i = 0; i < items.size() && run.spend(1); ++i) {
    if (i > 0) out += ", ";
    append_repr(run, items[i], out);
  }
  if (value.is_tuple() && items.size() == 1) out += ',';
  out += value.is_tuple() ? ')' : ']';
}

void append_dict_repr(Run& run, const Value& value, std::string& out) {
  out += '{';
  bool first = true;
  for (const auto& [key, item] : value.dict()) {
    if (!run.spend(1)) return;
    if (!first) out += ", ";
    first = false;
    append_repr(run, key, out);
    out += ": ";
    append_repr(run, item, out);
  }
  out += '}';
}

}  // namespace

std::string to_text(Run& run, const Value& value) {
  switch (value.kind()) {
    case Kind::undefined: return "";
    case Kind::string: return run.spend_bytes(value.string().size()) ? value.string() : std::string();
    default: {
      std::string out;
      append_repr(run, value, out);
      return out;
    }
  }
}

void append_repr(Run& run, const Value& value, std::string& out) {
  const Deeper deeper(run);
  if (!deeper) return;
  const size_t before = out.size();
  switch (value.kind()) {
    case Kind::undefined: out += "Undefined"; break;
    case Kind::none: out += "None"; break;
    case Kind::boolean: out += value.boolean() ? "True" : "False"; break;
    case Kind::integer: out += fmt::to_string(value.integer()); break;
    case Kind::real: out += real_repr(value.real()); break;
    case Kind::string: append_string_repr(value.string(), out); break;
    case Kind::list: return append_list_repr(run, value, out);
    case Kind::dict: return append_dict_repr(run, value, out);
    default: out.append("<").append(type_name(value)).append(">");
  }
  paid(run, out, before);
}

Value to_json(Run& run, const Value& value, int64_t indent, bool sort_keys) {
  if (indent > 32) return run.fail(Code::unsupported, "tojson: an indent of {}", indent);
  JsonWriter writer(run, indent, sort_keys);
  writer.write(value, 0);
  return run.ok() ? run.text(std::move(writer.out())) : Value();
}

}  // namespace sluice::engine::jinja
