// Errors as values.
//
// A Status is either ok or a code with one line of text that names what failed, where (file, field,
// offset) and, if known, what to do. Result<T> is a Status or a T. Both are moved or copied freely and
// belong to one thread at a time. Nothing in Sluice throws across a public function.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace sluice {

enum class Code : uint8_t {
  ok,
  invalid_argument,  // the caller asked for something that makes no sense
  not_found,         // a file, tensor or key that is not there
  corrupt,           // a file whose content contradicts itself or its format
  unsupported,       // valid, but not something this build can do
  over_budget,       // does not fit the memory that was allowed
  io_error,          // the operating system refused a read, a write or a mapping
  cancelled,         // somebody asked to stop
  unavailable,       // a facility of the machine is missing (io_uring, a device)
  internal,          // a broken promise inside Sluice
};

// A short name for people and JSON: "ok", "corrupt", …
std::string_view to_string(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::ok; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

  // The same error seen from one level further out: "prefix: message". No effect on ok.
  Status with_context(std::string_view prefix) const {
    if (ok()) return *this;
    return Status(code_, std::string(prefix) + ": " + message_);
  }

  // For errors that nobody can act upon, such as those met while cleaning up.
  void ignore() const {}

 private:
  Code code_ = Code::ok;
  std::string message_;
};

// A value or the reason why there is none. Reading the value of a failed Result is a programmer's
// error and ends the process with the message.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  Result(Status status) : status_(std::move(status)) {
    if (status_.ok()) die("a Result was made from an ok Status");
  }

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }

  T& value() & { return checked(); }
  const T& value() const& { return const_cast<Result*>(this)->checked(); }
  T&& value() && { return std::move(checked()); }
  T& operator*() & { return checked(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(checked()); }
  T* operator->() { return &checked(); }
  const T* operator->() const { return &value(); }

 private:
  T& checked() {
    if (!value_) die(status_.message().c_str());
    return *value_;
  }
  [[noreturn]] static void die(const char* why) {
    std::fprintf(stderr, "sluice: unchecked error: %s\n", why);
    std::abort();
  }

  Status status_;
  std::optional<T> value_;
};

}  // namespace sluice

#define SLUICE_CONCAT_INNER(a, b) a##b
#define SLUICE_CONCAT(a, b) SLUICE_CONCAT_INNER(a, b)

// Leaves the function with the Status (or the Result's Status) if `expr` failed.
#define SLUICE_RETURN_IF_ERROR(expr)                                            \
  do {                                                                          \
    if (auto sluice_status = (expr); !sluice_status.ok()) return sluice_status; \
  } while (false)

// SLUICE_ASSIGN_OR_RETURN(auto file, File::open(path));
#define SLUICE_ASSIGN_OR_RETURN(lhs, expr) \
  SLUICE_ASSIGN_OR_RETURN_IMPL(SLUICE_CONCAT(sluice_result_, __LINE__), lhs, expr)
#define SLUICE_ASSIGN_OR_RETURN_IMPL(result, lhs, expr) \
  auto result = (expr);                                 \
  if (!result.ok()) return result.status();             \
  lhs = std::move(result).value()
