#include "storage/gguf_header.h"

#include <cstring>
#include <string>

#include "core/bytes.h"
#include "core/error.h"
#include "storage/gguf_magic.h"

namespace sluice::storage {
namespace {

constexpr uint64_t max_key_bytes = 65535;   // of the specification
constexpr uint64_t max_tensor_name = 1024;  // the specification says 64
constexpr uint64_t max_alignment = MiB;
constexpr uint64_t max_header_bytes = 2 * GiB;
// The least that a key (length, one letter, type, one byte of value) and a tensor (length, one letter,
// n_dims, one dim, type, offset) take.
constexpr uint64_t min_key_bytes = 8 + 1 + 4 + 1;
constexpr uint64_t min_tensor_bytes = 8 + 1 + 4 + 8 + 4 + 8;

std::string readable_types() {
  std::string names;
  for (uint8_t i = 0; i <= static_cast<uint8_t>(DType::i32); ++i)
    names += fmt::format("{}{}", i > 0 ? " " : "", info(static_cast<DType>(i)).name);
  return names;
}

// Walks the header; each step checks that the file and the limits hold what it is about to take.
class HeaderReader {
 public:
  HeaderReader(ByteSource& source, const GgufLimits& limits) : source_(source), limits_(limits) {
    limits_.header_bytes = std::min(limits_.header_bytes, max_header_bytes);
  }

  Result<Header> read() {
    SLUICE_RETURN_IF_ERROR(read_preamble());
    SLUICE_RETURN_IF_ERROR(read_keys());
    SLUICE_RETURN_IF_ERROR(find_duplicate_keys());
    SLUICE_RETURN_IF_ERROR(find_alignment());
    SLUICE_RETURN_IF_ERROR(read_tensors());
    header_.data_offset = align_up(position_, header_.alignment);
    header_.bytes.shrink(position_);
    header_.keys.shrink_to_fit();
    SLUICE_RETURN_IF_ERROR(check_layout());
    return std::move(header_);
  }

 private:
  // An error about the field at `at`: "model.gguf: key 3 'general.name': length at byte 71: …".
  Status bad(Code code, std::string_view field, uint64_t at, std::string_view why) const {
    return error(code, "{}: {}{}{} at byte {}: {}", source_.name(), item(), item_ ? ": " : "", field, at, why);
  }
  Status bad(std::string_view field, uint64_t at, std::string_view why) const {
    return bad(Code::corrupt, field, at, why);
  }

  std::string item() const {
    if (!item_) return "";
    if (!item_name_bytes_) return fmt::format("{} {}", item_, item_index_);
    return fmt::format("{} {} '{}'", item_, item_index_, shortened(header_.text(item_name_, item_name_bytes_)));
  }

  void begin_item(const char* kind, uint64_t index) {
    item_ = kind;
    item_index_ = index;
    item_name_bytes_ = 0;
  }

  uint64_t left() const { return source_.size() - position_; }

  // Checks that `bytes` from the position on may exist, without reading them.
  Status claim(uint64_t bytes, std::string_view field) const {
    if (bytes > left())
      return bad(field, position_,
                 fmt::format("needs {} bytes, but the file ends after {} more (truncated or corrupt)", bytes, left()));
    if (position_ > limits_.header_bytes || bytes > limits_.header_bytes - position_)
      return bad(Code::over_budget, field, position_,
                 fmt::format("metadata needs {} bytes or more, but {} are allowed for it", position_ + bytes,
                             limits_.header_bytes));
    return {};
  }

  // Makes `bytes` from the position on present, with some more read ahead.
  Status need(uint64_t bytes, std::string_view field) {
    SLUICE_RETURN_IF_ERROR(claim(bytes, field));
    const uint64_t have = header_.bytes.size();
    if (position_ + bytes <= have) return {};
    const uint64_t step = std::clamp<uint64_t>(have / 2, 64 * KiB, 4 * MiB);
    const uint64_t most = std::min(source_.size(), limits_.header_bytes);
    return header_.bytes.load(source_, std::min(most, std::max(position_ + bytes, have + step)));
  }

  template <class T>
  Status take(T& out, std::string_view field) {
    SLUICE_RETURN_IF_ERROR(need(sizeof(T), field));
    std::memcpy(&out, header_.bytes.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return {};
  }

  // A name: length and text, of 1 to `most` printable bytes.
  Status take_name(uint32_t& at, uint32_t& size, uint64_t most) {
    const uint64_t begin = position_;
    uint64_t length = 0;
    SLUICE_RETURN_IF_ERROR(take(length, "length of the name"));
    if (length == 0) return bad("length of the name", begin, "is 0");
    if (length > most) return bad("length of the name", begin, fmt::format("is {}, more than {}", length, most));
    SLUICE_RETURN_IF_ERROR(need(length, "name"));
    at = static_cast<uint32_t>(position_);
    size = static_cast<uint32_t>(length);
    if (!printable_utf8(header_.text(at, size)))
      return bad("name", position_, "is not UTF-8 text without control characters");
    position_ += length;
    item_name_ = at;
    item_name_bytes_ = size;
    return {};
  }

  Status read_preamble() {
    const uint64_t head = std::min<uint64_t>(source_.size(), 64);
    SLUICE_RETURN_IF_ERROR(header_.bytes.load(source_, head));
    SLUICE_RETURN_IF_ERROR(check_magic(source_.name(), {header_.bytes.data(), head}));
    position_ = 4;
    SLUICE_RETURN_IF_ERROR(take(header_.version, "version"));
    SLUICE_RETURN_IF_ERROR(check_version(source_.name(), header_.version));
    SLUICE_RETURN_IF_ERROR(take(n_tensors_, "number of tensors"));
    SLUICE_RETURN_IF_ERROR(take(n_keys_, "number of keys"));
    SLUICE_RETURN_IF_ERROR(check_count(n_tensors_, min_tensor_bytes, limits_.tensors, "number of tensors", 8));
    return check_count(n_keys_, min_key_bytes, limits_.keys, "number of keys", 16);
  }

  Status check_count(uint64_t n, uint64_t least, uint64_t most, const char* field, uint64_t at) const {
    if (n > left() / least)
      return bad(field, at, fmt::format("is {}, more than the {} bytes that follow can hold", n, left()));
    if (n > most) return bad(Code::over_budget, field, at, fmt::format("is {}, but at most {} are allowed", n, most));
    return {};
  }

  Status read_keys() {
    for (uint64_t i = 0; i < n_keys_; ++i) {
      begin_item("key", i);
      KeyPlace key = {};
      SLUICE_RETURN_IF_ERROR(take_name(key.name, key.name_bytes, max_key_bytes));
      SLUICE_RETURN_IF_ERROR(take_type(key.type, "type"));
      key.value = static_cast<uint32_t>(position_);
      SLUICE_RETURN_IF_ERROR(pass_value(key.type));
      header_.keys.push_back(key);
    }
    item_ = nullptr;
    return {};
  }

  Status take_type(GgufType& type, const char* field) {
    uint32_t id = 0;
    SLUICE_RETURN_IF_ERROR(take(id, field));
    if (id > static_cast<uint32_t>(GgufType::f64))
      return bad(field, position_ - 4, fmt::format("is {}, which is no value type", id));
    type = static_cast<GgufType>(id);
    return {};
  }

  Status pass_value(GgufType type) {
    if (type == GgufType::string) return pass_string("value");
    if (type == GgufType::array) return pass_array();
    return pass_scalars(type, 1, "value");
  }

  Status pass_string(const char* field) {
    const uint64_t begin = position_;
    uint64_t length = 0;
    SLUICE_RETURN_IF_ERROR(take(length, field));
    if (length > left())
      return bad(field, begin, fmt::format("a string of {} bytes, but only {} follow", length, left()));
    SLUICE_RETURN_IF_ERROR(need(length, field));
    position_ += length;
    return {};
  }

  // `bytes` has been found not to wrap.
  Status pass_scalars(GgufType type, uint64_t count, const char* field) {
    const uint64_t bytes = count * scalar_bytes(type);
    SLUICE_RETURN_IF_ERROR(need(bytes, field));
    for (uint64_t i = 0; type == GgufType::boolean && i < count; ++i) {
      const auto value = std::to_integer<unsigned>(header_.bytes.data()[position_ + i]);
      if (value > 1) return bad(field, position_ + i, fmt::format("a bool of {}, not 0 or 1", value));
    }
    position_ += bytes;
    return {};
  }

  Status pass_array() {
    GgufType type = {};
    SLUICE_RETURN_IF_ERROR(take_type(type, "type of the array's elements"));
    if (type == GgufType::array)
      return bad(Code::unsupported, "type of the array's elements", position_ - 4, "arrays of arrays are not read");
    const uint64_t count_at = position_;
    uint64_t count = 0;
    SLUICE_RETURN_IF_ERROR(take(count, "length of the array"));
    const uint64_t least = type == GgufType::string ? sizeof(uint64_t) : scalar_bytes(type);
    uint64_t bytes = 0;
    if (!checked_mul(count, least, bytes) || bytes > left())
      return bad("length of the array", count_at,
                 fmt::format("is {}, more than the {} bytes that follow can hold", count, left()));
    SLUICE_RETURN_IF_ERROR(claim(bytes, "array"));
    if (type != GgufType::string) return pass_scalars(type, count, "array");
    for (uint64_t i = 0; i < count; ++i) SLUICE_RETURN_IF_ERROR(pass_string("string in the array"));
    return {};
  }

  Status find_duplicate_keys() const {
    const auto order = sorted_by_name(header_.keys, [&](const KeyPlace& key) { return header_.name(key); });
    for (size_t i = 1; i < order.size(); ++i) {
      const KeyPlace &a = header_.keys[order[i - 1]], &b = header_.keys[order[i]];
      if (header_.name(a) == header_.name(b))
        return error(Code::corrupt, "{}: key '{}' at byte {} repeats the one at byte {}", source_.name(),
                     shortened(header_.name(b)), b.name, a.name);
    }
    return {};
  }

  Status find_alignment() {
    for (const KeyPlace& key : header_.keys) {
      if (header_.name(key) != "general.alignment") continue;
      const auto value = header_.value(key).as_unsigned();
      if (!value)
        return error(Code::corrupt, "{}: key 'general.alignment' at byte {}: no unsigned integer, but {}",
                     source_.name(), key.value, header_.value(key).describe_type());
      if (!is_power_of_two(*value) || *value < 8 || *value > max_alignment)
        return error(Code::corrupt, "{}: key 'general.alignment' at byte {}: is {}, not a power of two from 8 to {}",
                     source_.name(), key.value, *value, max_alignment);
      header_.alignment = *value;
    }
    return {};
  }

  Status read_tensors() {
    for (uint64_t i = 0; i < n_tensors_; ++i) {
      begin_item("tensor", i);
      TensorPlace tensor = {};
      SLUICE_RETURN_IF_ERROR(take_name(tensor.name, tensor.name_bytes, max_tensor_name));
      const uint64_t dims_at = position_ + 4;
      SLUICE_RETURN_IF_ERROR(take_dims(tensor));
      SLUICE_RETURN_IF_ERROR(take_dtype(tensor.dtype));
      SLUICE_RETURN_IF_ERROR(measure(tensor, dims_at));
      tensor.offset_at = static_cast<uint32_t>(position_);
      SLUICE_RETURN_IF_ERROR(take(tensor.offset, "offset"));
      if (tensor.offset % header_.alignment != 0)
        return bad("offset", tensor.offset_at,
                   fmt::format("is {}, no multiple of the alignment {}", tensor.offset, header_.alignment));
      header_.tensors.push_back(tensor);
    }
    item_ = nullptr;
    return {};
  }

  Status take_dims(TensorPlace& tensor) {
    SLUICE_RETURN_IF_ERROR(take(tensor.n_dims, "n_dims"));
    if (tensor.n_dims == 0 || tensor.n_dims > 4)
      return bad("n_dims", position_ - 4, fmt::format("is {}, not 1 to 4", tensor.n_dims));
    tensor.dims.fill(1);
    for (uint32_t d = 0; d < tensor.n_dims; ++d) {
      SLUICE_RETURN_IF_ERROR(take(tensor.dims[d], "dims"));
      if (tensor.dims[d] == 0) return bad(fmt::format("dims[{}]", d), position_ - 8, "is 0");
    }
    return {};
  }

  Status take_dtype(DType& dtype) {
    uint32_t id = 0;
    SLUICE_RETURN_IF_ERROR(take(id, "type"));
    const auto known = dtype_from_ggml(id);
    if (!known)
      return bad(Code::unsupported, "type", position_ - 4,
                 fmt::format("{} (ggml type {}) is not read by this build, only {}", ggml_type_name(id), id,
                             readable_types()));
    dtype = *known;
    return {};
  }

  // The tensor's size, with nothing that wraps.
  Status measure(TensorPlace& tensor, uint64_t dims_at) {
    const DTypeInfo& type = info(tensor.dtype);
    if (tensor.dims[0] % type.block_elements != 0)
      return bad("dims[0]", dims_at,
                 fmt::format("is {}, no multiple of the {} values in a block of {}", tensor.dims[0],
                             type.block_elements, type.name));
    uint64_t elements = 1;
    uint64_t bytes = 0;
    bool fits = true;
    for (const uint64_t dim : tensor.dims) fits = fits && checked_mul(elements, dim, elements);
    fits = fits && checked_mul(elements / type.block_elements, type.block_bytes, bytes) && elements >> 63 == 0;
    if (!fits) return bad("dims", dims_at, "their product does not fit 63 bits");
    tensor.bytes = bytes;
    return {};
  }

  Status check_layout() const {
    std::vector<uint32_t> order(header_.tensors.size());
    for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    const auto& tensors = header_.tensors;
    std::sort(order.begin(), order.end(),
              [&](uint32_t a, uint32_t b) { return tensors[a].offset < tensors[b].offset; });
    for (size_t i = 0; i < order.size(); ++i) {
      const TensorPlace& tensor = tensors[order[i]];
      SLUICE_RETURN_IF_ERROR(check_inside(tensor));
      if (i > 0) SLUICE_RETURN_IF_ERROR(check_apart(tensors[order[i - 1]], tensor));
    }
    return {};
  }

  Status check_inside(const TensorPlace& tensor) const {
    uint64_t begin = 0, end = 0;
    if (checked_add(header_.data_offset, tensor.offset, begin) && checked_add(begin, tensor.bytes, end) &&
        end <= source_.size())
      return {};
    return error(Code::corrupt,
                 "{}: tensor '{}': offset at byte {}: {} bytes at offset {} of the data, which begins at byte {}, "
                 "reach past the file's end at {} (truncated or corrupt)",
                 source_.name(), shortened(header_.name(tensor)), tensor.offset_at, tensor.bytes, tensor.offset,
                 header_.data_offset, source_.size());
  }

  // `a` does not begin after `b`; both are inside the file.
  Status check_apart(const TensorPlace& a, const TensorPlace& b) const {
    if (a.offset + a.bytes <= b.offset) return {};
    return error(Code::corrupt, "{}: tensor '{}': offset at byte {}: {} overlaps tensor '{}' at {} with {} bytes",
                 source_.name(), shortened(header_.name(b)), b.offset_at, b.offset, shortened(header_.name(a)),
                 a.offset, a.bytes);
  }

  ByteSource& source_;
  GgufLimits limits_;
  Header header_;
  uint64_t position_ = 0;
  uint64_t n_tensors_ = 0, n_keys_ = 0;
  // What is being read, for messages.
  const char* item_ = nullptr;
  uint64_t item_index_ = 0;
  uint32_t item_name_ = 0, item_name_bytes_ = 0;
};

}  // namespace

Result<Header> read_header(ByteSource& source, const GgufLimits& limits) { return HeaderReader(source, limits).read(); }

}  // namespace sluice::storage
