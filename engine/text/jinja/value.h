// Values of the template language, and the bounds under which a template runs.
//
// The language is the part of Jinja that chat templates use (https://jinja.palletsprojects.com), with
// Python's values: undefined, none, booleans, 64-bit integers, doubles, strings, lists and tuples, dicts,
// namespaces. All but namespaces are immutable, so values are shared by reference and form no cycles.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/error.h"

namespace sluice::engine::jinja {

class Value;
struct MacroNode;
struct Loop;
struct Space;

// Bytes that values hold, counted against a limit.
struct MemoryCount {
  uint64_t used = 0;
  uint64_t limit = 0;
};

// A share of a MemoryCount, given back when the object that carries it goes.
class Charge {
 public:
  Charge() = default;
  Charge(MemoryCount* count, uint64_t bytes) : count_(count), bytes_(bytes) {
    if (count_) count_->used += bytes_;
  }
  Charge(const Charge&) = delete;
  Charge& operator=(const Charge&) = delete;
  ~Charge() {
    if (count_) count_->used -= bytes_;
  }

 private:
  MemoryCount* count_ = nullptr;
  uint64_t bytes_ = 0;
};

struct Text {
  Text(std::string s, MemoryCount* count) : bytes(std::move(s)), charge(count, bytes.capacity() + sizeof(*this)) {}
  const std::string bytes;
  Charge charge;
};

struct List;
struct Dict;

struct Undefined {
  std::shared_ptr<const Text> name;  // of what is missing; may be null
};
struct None {};
// A method or global function that was named but not called.
struct Function {
  std::string_view name;
};

enum class Kind : uint8_t { undefined, none, boolean, integer, real, string, list, dict, space, loop, macro, function };

class Value {
 public:
  Value() = default;
  Value(None) : v_(None{}) {}
  Value(bool b) : v_(b) {}
  Value(int64_t i) : v_(i) {}
  Value(double d) : v_(d) {}
  Value(Undefined u) : v_(std::move(u)) {}
  Value(std::shared_ptr<const Text> t) : v_(std::move(t)) {}
  Value(std::shared_ptr<const List> l) : v_(std::move(l)) {}
  Value(std::shared_ptr<const Dict> d) : v_(std::move(d)) {}
  Value(Space* s) : v_(s) {}
  Value(std::shared_ptr<const Loop> l) : v_(std::move(l)) {}
  Value(const MacroNode* m) : v_(m) {}
  Value(Function f) : v_(f) {}
  Value(const char*) = delete;

  Kind kind() const { return static_cast<Kind>(v_.index()); }
  bool is(Kind k) const { return kind() == k; }
  bool is_number() const { return is(Kind::integer) || is(Kind::real) || is(Kind::boolean); }

  // Each is called only on a value of that kind.
  bool boolean() const { return std::get<bool>(v_); }
  int64_t integer() const { return is(Kind::boolean) ? int64_t{boolean()} : std::get<int64_t>(v_); }
  double real() const { return is(Kind::real) ? std::get<double>(v_) : static_cast<double>(integer()); }
  const std::string& string() const { return std::get<std::shared_ptr<const Text>>(v_)->bytes; }
  const std::vector<Value>& list() const;
  bool is_tuple() const;
  const std::vector<std::pair<Value, Value>>& dict() const;
  Space& space() const { return *std::get<Space*>(v_); }
  const Loop& loop() const { return *std::get<std::shared_ptr<const Loop>>(v_); }
  const MacroNode& macro() const { return *std::get<const MacroNode*>(v_); }
  std::string_view missing_name() const;
  std::string_view function_name() const { return std::get<Function>(v_).name; }

  // The item of a dict under a string key, or null.
  const Value* item(std::string_view key) const;

  // Nesting of lists and dicts: 0 for anything else.
  uint32_t depth() const;

 private:
  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>, std::shared_ptr<const List>,
               std::shared_ptr<const Dict>, Space*, std::shared_ptr<const Loop>, const MacroNode*, Function>
      v_;
};

using Items = std::vector<Value>;
using Pairs = std::vector<std::pair<Value, Value>>;

struct List {
  List(Items i, bool t, uint32_t d, MemoryCount* count)
      : items(std::move(i)), tuple(t), depth(d), charge(count, items.capacity() * sizeof(Value) + sizeof(*this)) {}
  const Items items;
  bool tuple;
  uint32_t depth;
  Charge charge;
};

struct Dict {
  Dict(Pairs p, uint32_t d, MemoryCount* count)
      : pairs(std::move(p)), depth(d), charge(count, pairs.capacity() * 2 * sizeof(Value) + sizeof(*this)) {}
  const Pairs pairs;  // in order of insertion, keys unique
  uint32_t depth;
  Charge charge;
};

// namespace(...): the one thing a template can change. Owned by the run, so that it may hold itself.
struct Space {
  std::vector<std::pair<std::string, Value>> attributes;
};

// The `loop` of a for statement.
struct Loop {
  Value items;  // a list
  size_t index = 0;
};

std::string_view type_name(const Value& value);  // as Python calls it, for messages
bool truth(const Value& value);

// Arguments of a call.
struct Arguments {
  Items positional;
  std::vector<std::pair<std::string_view, Value>> named;

  // The argument at `index` or called `name`; null if not given.
  const Value* find(size_t index, std::string_view name) const;
  size_t size() const { return positional.size() + named.size(); }
};

// One rendering: what it may still spend and the first thing that went wrong. After a failure every
// operation returns at once with an undefined value, and the rendering ends with the status.
class Run {
 public:
  Run(uint64_t steps, uint64_t bytes) : steps_left_(steps), memory_{0, bytes} {}
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  ~Run();

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }

  template <class... Args>
  Value fail(Code code, fmt::format_string<Args...> format, Args&&... args) {
    return fail_with(code, fmt::format(format, std::forward<Args>(args)...));
  }
  Value fail_with(Code code, std::string message);

  // Pays for work: about 50 ns or 64 bytes touched a step. false, and failed, when nothing is left.
  bool spend(uint64_t steps);
  bool spend_bytes(uint64_t bytes) { return spend(1 + bytes / 64); }
  // May `bytes` more be held? Fails if not.
  bool may_hold(uint64_t bytes);
  MemoryCount& memory() { return memory_; }

  Value text(std::string s);
  Value list(Items items, bool tuple = false);
  Value dict(Pairs pairs);
  Value space();
  Value undefined(std::string_view name);

  int line = 0;   // of the template, for messages
  int depth = 0;  // of evaluation

 private:
  uint64_t steps_left_;
  MemoryCount memory_;
  std::vector<std::unique_ptr<Space>> spaces_;
  Status status_;
};

// Enters a level of evaluation; false, and failed, where it is too deep for the stack.
class Deeper {
 public:
  explicit Deeper(Run& run);
  ~Deeper() { --run_.depth; }
  explicit operator bool() const { return run_.ok(); }

 private:
  Run& run_;
};

// Python's ==, and an order for values that have one (fails for others).
bool equal(Run& run, const Value& a, const Value& b);
int compare(Run& run, const Value& a, const Value& b);

// str(value) and repr(value).
std::string to_text(Run& run, const Value& value);
void append_repr(Run& run, const Value& value, std::string& out);

// The items over which `for` runs: those of a list, the keys of a dict, the characters of a string.
// Fails for what cannot be iterated.
Value iterate(Run& run, const Value& value);

// value.name and value[key]; undefined where there is none.
Value attribute(Run& run, const Value& value, std::string_view name);
Value subscript(Run& run, const Value& value, const Value& key);

}  // namespace sluice::engine::jinja
