// Filters, tests, methods and functions of the template language.
#pragma once

#include <ctime>
#include <string_view>

#include "engine/text/jinja/value.h"

namespace sluice::engine::jinja {

// value | name(arguments). unsupported if there is no such filter.
Value apply_filter(Run& run, std::string_view name, const Value& value, const Arguments& arguments);

// value is name(arguments).
bool apply_test(Run& run, std::string_view name, const Value& value, const Arguments& arguments);

// The name of the method that values of this type have, in static storage; empty if there is none.
std::string_view find_method(const Value& value, std::string_view name);
Value call_method(Run& run, const Value& value, std::string_view name, const Arguments& arguments);

// range, namespace, dict, raise_exception, strftime_now. `now` may be null.
bool is_function(std::string_view name);
Value call_function(Run& run, std::string_view name, const Arguments& arguments, const std::tm* now);

// json.dumps(value, ensure_ascii=False, indent=indent); indent < 0: one line.
Value to_json(Run& run, const Value& value, int64_t indent, bool sort_keys);

// a + b, a // b and so on, by the operator's text.
Value arithmetic(Run& run, std::string_view op, const Value& a, const Value& b);
bool contains(Run& run, const Value& container, const Value& item);

}  // namespace sluice::engine::jinja
