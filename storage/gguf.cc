#include "storage/gguf.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "core/error.h"
#include "storage/gguf_header.h"

namespace sluice::storage {
namespace {

template <class T>
constexpr const char* type_name() {
  if constexpr (std::is_same_v<T, uint32_t>) return "u32";
  if constexpr (std::is_same_v<T, int32_t>) return "i32";
  if constexpr (std::is_same_v<T, uint64_t>) return "u64";
  if constexpr (std::is_same_v<T, int64_t>) return "i64";
  if constexpr (std::is_same_v<T, float>) return "f32";
  if constexpr (std::is_same_v<T, double>) return "f64";
  if constexpr (std::is_same_v<T, bool>) return "bool";
  if constexpr (std::is_same_v<T, std::string_view>) return "string";
}

bool is_integer(GgufType type) {
  switch (type) {
    case GgufType::f32:
    case GgufType::f64:
    case GgufType::boolean:
    case GgufType::string:
    case GgufType::array: return false;
    default: return true;
  }
}

bool is_float(GgufType type) { return type == GgufType::f32 || type == GgufType::f64; }

// Whether values of `type` may become a T at all.
template <class T>
bool right_type(GgufType type) {
  if constexpr (std::is_same_v<T, bool>) return type == GgufType::boolean;
  if constexpr (std::is_same_v<T, std::string_view>) return type == GgufType::string;
  if constexpr (std::is_floating_point_v<T>) return is_float(type);
  return is_integer(type);
}

// The value as a T, or nothing if it is out of T's range.
template <class T>
std::optional<T> convert(const GgufValue& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value.as_bool();
  } else if constexpr (std::is_same_v<T, std::string_view>) {
    return value.as_string();
  } else if constexpr (std::is_floating_point_v<T>) {
    const auto wide = value.as_double();
    if (!wide || (std::isfinite(*wide) && std::abs(*wide) > static_cast<double>(std::numeric_limits<T>::max())))
      return std::nullopt;
    return static_cast<T>(*wide);
  } else if constexpr (std::is_signed_v<T>) {
    const auto wide = value.as_signed();
    if (!wide || *wide < std::numeric_limits<T>::min() || *wide > std::numeric_limits<T>::max()) return std::nullopt;
    return static_cast<T>(*wide);
  } else {
    const auto wide = value.as_unsigned();
    if (!wide || *wide > std::numeric_limits<T>::max()) return std::nullopt;
    return static_cast<T>(*wide);
  }
}

// A number for a message.
std::string print(const GgufValue& value) {
  if (const auto u = value.as_unsigned()) return fmt::format("{}", *u);
  if (const auto i = value.as_signed()) return fmt::format("{}", *i);
  if (const auto d = value.as_double()) return fmt::format("{}", *d);
  return value.describe_type();
}

}  // namespace

Result<GgufFile> GgufFile::parse(const std::string& name, std::span<const std::byte> bytes, const GgufLimits& limits) {
  const auto open_part = [&](uint32_t part, uint32_t) -> Result<std::unique_ptr<ByteSource>> {
    if (part != 0) return error(Code::unsupported, "{}: one part of a split model cannot be read alone", name);
    return std::unique_ptr<ByteSource>(std::make_unique<MemorySource>(name, bytes));
  };
  return read(open_part, limits);
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto at = std::lower_bound(keys_by_name_.begin(), keys_by_name_.end(), key,
                                   [&](uint32_t i, std::string_view name) { return keys_[i].name < name; });
  if (at == keys_by_name_.end() || keys_[*at].name != key) return nullptr;
  return &keys_[*at].value;
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto at = std::lower_bound(tensors_by_name_.begin(), tensors_by_name_.end(), name,
                                   [&](uint32_t i, std::string_view n) { return tensors_[i].name < n; });
  if (at == tensors_by_name_.end() || tensors_[*at].name != name) return nullptr;
  return &tensors_[*at];
}

Result<const GgufTensor*> GgufFile::tensor(std::string_view name) const {
  if (const GgufTensor* found = find_tensor(name)) return found;
  return error(Code::not_found, "{}: tensor '{}' is missing", path(), name);
}

Result<GgufValue> GgufFile::required(std::string_view key) const {
  if (const GgufValue* found = find(key)) return *found;
  return error(Code::not_found, "{}: key '{}' is missing", path(), key);
}

template <class T>
Result<T> GgufFile::get(std::string_view key) const {
  SLUICE_ASSIGN_OR_RETURN(const GgufValue value, required(key));
  if (!right_type<T>(value.type()))
    return error(Code::corrupt, "{}: key '{}' has type {}, expected {}", path(), key, value.describe_type(),
                 type_name<T>());
  if (const auto converted = convert<T>(value)) return *converted;
  return error(Code::corrupt, "{}: key '{}' is {}, which does not fit {}", path(), key, print(value), type_name<T>());
}

template <class T>
Result<std::vector<T>> GgufFile::get_array(std::string_view key, uint64_t max_size) const {
  SLUICE_ASSIGN_OR_RETURN(const GgufValue value, required(key));
  const auto array = value.as_array();
  if (!array || !right_type<T>(array->type()))
    return error(Code::corrupt, "{}: key '{}' has type {}, expected array of {}", path(), key, value.describe_type(),
                 type_name<T>());
  if (array->size() > max_size)
    return error(Code::corrupt, "{}: key '{}' has {} elements, expected at most {}", path(), key, array->size(),
                 max_size);
  std::vector<T> result;
  result.reserve(array->size());
  for (uint64_t i = 0; i < array->size(); ++i) {
    const auto converted = convert<T>((*array)[i]);
    if (!converted)
      return error(Code::corrupt, "{}: key '{}': element {} is {}, which does not fit {}", path(), key, i,
                   print((*array)[i]), type_name<T>());
    result.push_back(*converted);
  }
  return result;
}

Result<GgufStrings> GgufFile::get_strings(std::string_view key) const {
  SLUICE_ASSIGN_OR_RETURN(const GgufValue value, required(key));
  const auto array = value.as_array();
  if (!array || array->type() != GgufType::string)
    return error(Code::corrupt, "{}: key '{}' has type {}, expected array of string", path(), key,
                 value.describe_type());
  return array->strings();
}

uint64_t GgufFile::memory_bytes() const {
  uint64_t total = sizeof(*this) + parts_.capacity() * sizeof(GgufPart) + headers_.capacity() * sizeof(HeaderBytes) +
                   keys_.capacity() * sizeof(GgufKey) + tensors_.capacity() * sizeof(GgufTensor) +
                   (keys_by_name_.capacity() + tensors_by_name_.capacity()) * sizeof(uint32_t);
  for (const GgufPart& part : parts_) total += part.path.capacity();
  for (const HeaderBytes& header : headers_) total += header.size();
  return total;
}

template Result<uint32_t> GgufFile::get(std::string_view) const;
template Result<int32_t> GgufFile::get(std::string_view) const;
template Result<uint64_t> GgufFile::get(std::string_view) const;
template Result<int64_t> GgufFile::get(std::string_view) const;
template Result<float> GgufFile::get(std::string_view) const;
template Result<double> GgufFile::get(std::string_view) const;
template Result<bool> GgufFile::get(std::string_view) const;
template Result<std::string_view> GgufFile::get(std::string_view) const;

template Result<std::vector<uint32_t>> GgufFile::get_array(std::string_view, uint64_t) const;
template Result<std::vector<int32_t>> GgufFile::get_array(std::string_view, uint64_t) const;
template Result<std::vector<uint64_t>> GgufFile::get_array(std::string_view, uint64_t) const;
template Result<std::vector<int64_t>> GgufFile::get_array(std::string_view, uint64_t) const;
template Result<std::vector<float>> GgufFile::get_array(std::string_view, uint64_t) const;
template Result<std::vector<double>> GgufFile::get_array(std::string_view, uint64_t) const;
template Result<std::vector<bool>> GgufFile::get_array(std::string_view, uint64_t) const;

}  // namespace sluice::storage
