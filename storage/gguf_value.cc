#include <bit>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "storage/gguf.h"
#include "storage/gguf_header.h"

namespace sluice::storage {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF values are read as they lie");

template <class T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

std::string_view load_string(const std::byte* p) {
  return {reinterpret_cast<const char*>(p + sizeof(uint64_t)), load<uint64_t>(p)};
}

}  // namespace

std::string_view to_string(GgufType type) {
  switch (type) {
    case GgufType::u8: return "u8";
    case GgufType::i8: return "i8";
    case GgufType::u16: return "u16";
    case GgufType::i16: return "i16";
    case GgufType::u32: return "u32";
    case GgufType::i32: return "i32";
    case GgufType::f32: return "f32";
    case GgufType::boolean: return "bool";
    case GgufType::string: return "string";
    case GgufType::array: return "array";
    case GgufType::u64: return "u64";
    case GgufType::i64: return "i64";
    case GgufType::f64: return "f64";
  }
  return "unknown";
}

uint32_t scalar_bytes(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean: return 1;
    case GgufType::u16:
    case GgufType::i16: return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32: return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64: return 8;
    case GgufType::string:
    case GgufType::array: return 0;
  }
  return 0;
}

std::string GgufValue::describe_type() const {
  const auto array = as_array();
  if (!array) return std::string(to_string(type_));
  return fmt::format("array of {} {}", array->size(), to_string(array->type()));
}

std::optional<uint64_t> GgufValue::as_unsigned() const {
  if (type_ == GgufType::u64) return load<uint64_t>(data_);
  const auto value = as_signed();
  if (!value || *value < 0) return std::nullopt;
  return static_cast<uint64_t>(*value);
}

std::optional<int64_t> GgufValue::as_signed() const {
  switch (type_) {
    case GgufType::u8: return load<uint8_t>(data_);
    case GgufType::i8: return load<int8_t>(data_);
    case GgufType::u16: return load<uint16_t>(data_);
    case GgufType::i16: return load<int16_t>(data_);
    case GgufType::u32: return load<uint32_t>(data_);
    case GgufType::i32: return load<int32_t>(data_);
    case GgufType::i64: return load<int64_t>(data_);
    case GgufType::u64: break;
    default: return std::nullopt;
  }
  const auto value = load<uint64_t>(data_);
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return static_cast<int64_t>(value);
}

std::optional<double> GgufValue::as_double() const {
  if (type_ == GgufType::f32) return load<float>(data_);
  if (type_ == GgufType::f64) return load<double>(data_);
  return std::nullopt;
}

std::optional<bool> GgufValue::as_bool() const {
  if (type_ != GgufType::boolean) return std::nullopt;
  return load<uint8_t>(data_) != 0;
}

std::optional<std::string_view> GgufValue::as_string() const {
  if (type_ != GgufType::string) return std::nullopt;
  return load_string(data_);
}

std::optional<GgufArray> GgufValue::as_array() const {
  if (type_ != GgufType::array) return std::nullopt;
  return GgufArray(static_cast<GgufType>(load<uint32_t>(data_)), load<uint64_t>(data_ + 4), data_ + 12);
}

std::string_view GgufStrings::iterator::operator*() const { return load_string(at_); }

GgufStrings::iterator& GgufStrings::iterator::operator++() {
  at_ += sizeof(uint64_t) + load<uint64_t>(at_);
  --left_;
  return *this;
}

GgufValue GgufArray::operator[](uint64_t i) const {
  SLUICE_CHECK(i < size_ && type_ != GgufType::string);
  return GgufValue(type_, data_ + i * scalar_bytes(type_));
}

GgufStrings GgufArray::strings() const {
  SLUICE_CHECK(type_ == GgufType::string);
  return GgufStrings(data_, size_);
}

}  // namespace sluice::storage
