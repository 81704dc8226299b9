// Writes GGUF files for tests, valid and deliberately broken ones.
//
//   GgufBuilder file;
//   file.string("general.architecture", "llama").u32("llama.block_count", 2);
//   file.tensor_f32("output_norm.weight", {64}, values);
//   REQUIRE(file.write(path).ok());
//
// Everything is written in the order in which it was added; tensor data follows in the same order, each
// at the next multiple of the alignment. The builder checks nothing that a test may want to break: names
// and keys may repeat, types may be wrong. Errors of the operating system are Status values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "sluice/status.h"

namespace sluice::test {

using Bytes = std::vector<std::byte>;

void append_raw(Bytes& to, const void* from, size_t n);
// Appends a number as it lies in memory: little endian.
template <class T>
void append(Bytes& to, T value) {
  append_raw(to, &value, sizeof value);
}
// Appends length (u64) and text.
void append_string(Bytes& to, std::string_view text);

template <class T>
Bytes bytes_of(T value) {
  Bytes result;
  append(result, value);
  return result;
}

// "model-00001-of-00003.gguf" for ("model", 0, 3).
std::string gguf_part_name(std::string_view stem, uint32_t part, uint32_t count);

Status write_file(const std::string& path, std::span<const std::byte> bytes);

class GgufBuilder {
 public:
  // Metadata.
  GgufBuilder& u8(std::string_view key, uint8_t value) { return raw_key(key, 0, bytes_of(value)); }
  GgufBuilder& i8(std::string_view key, int8_t value) { return raw_key(key, 1, bytes_of(value)); }
  GgufBuilder& u16(std::string_view key, uint16_t value) { return raw_key(key, 2, bytes_of(value)); }
  GgufBuilder& i16(std::string_view key, int16_t value) { return raw_key(key, 3, bytes_of(value)); }
  GgufBuilder& u32(std::string_view key, uint32_t value) { return raw_key(key, 4, bytes_of(value)); }
  GgufBuilder& i32(std::string_view key, int32_t value) { return raw_key(key, 5, bytes_of(value)); }
  GgufBuilder& f32(std::string_view key, float value) { return raw_key(key, 6, bytes_of(value)); }
  GgufBuilder& boolean(std::string_view key, bool value) { return raw_key(key, 7, bytes_of(uint8_t{value})); }
  GgufBuilder& string(std::string_view key, std::string_view value);
  GgufBuilder& u64(std::string_view key, uint64_t value) { return raw_key(key, 10, bytes_of(value)); }
  GgufBuilder& i64(std::string_view key, int64_t value) { return raw_key(key, 11, bytes_of(value)); }
  GgufBuilder& f64(std::string_view key, double value) { return raw_key(key, 12, bytes_of(value)); }

  GgufBuilder& u32_array(std::string_view key, std::span<const uint32_t> v) {
    return array(key, 4, std::as_bytes(v), v.size());
  }
  GgufBuilder& i32_array(std::string_view key, std::span<const int32_t> v) {
    return array(key, 5, std::as_bytes(v), v.size());
  }
  GgufBuilder& f32_array(std::string_view key, std::span<const float> v) {
    return array(key, 6, std::as_bytes(v), v.size());
  }
  GgufBuilder& string_array(std::string_view key, std::span<const std::string> values);
  // Any array: the id of its element type, the bytes of all elements and the length that it claims.
  GgufBuilder& array(std::string_view key, uint32_t element_type, std::span<const std::byte> elements, uint64_t length);
  // Any value: the id of its type and the bytes that follow it.
  GgufBuilder& raw_key(std::string_view key, uint32_t type, std::span<const std::byte> value);

  // Tensors. `dims` as GGUF orders them: dims[0] is contiguous.
  GgufBuilder& tensor(std::string_view name, DType type, std::vector<uint64_t> dims, Bytes data);
  // The same with arbitrary bytes that depend on the name only; as numbers they may be NaN or infinite.
  GgufBuilder& tensor(std::string_view name, DType type, std::vector<uint64_t> dims);
  GgufBuilder& tensor_f32(std::string_view name, std::vector<uint64_t> dims, std::span<const float> values);
  // Any description: type id, any number of dims, and where the data is said to lie, if not where it is.
  GgufBuilder& raw_tensor(std::string_view name, uint32_t ggml_type, std::vector<uint64_t> dims, Bytes data,
                          std::optional<uint64_t> offset = {});

  // Adds the key general.alignment and lays the data out by it (by 32 where it cannot be).
  GgufBuilder& alignment(uint32_t value);

  // Lies in the first fields.
  GgufBuilder& magic(std::string_view text);
  GgufBuilder& version(uint32_t value);
  GgufBuilder& claim_keys(uint64_t n);
  GgufBuilder& claim_tensors(uint64_t n);

  Bytes header() const;  // all before the padding that precedes the data
  Bytes bytes() const;
  Status write(const std::string& path) const { return write_file(path, bytes()); }

  // The same model in `parts` parts: tensors dealt out in order, keys in the first, split.* in all.
  std::vector<GgufBuilder> split(uint32_t parts) const;

 private:
  struct Key {
    std::string name;
    uint32_t type;
    Bytes value;
  };
  struct Tensor {
    std::string name;
    uint32_t type;
    std::vector<uint64_t> dims;
    Bytes data;
    std::optional<uint64_t> offset;
  };
  uint64_t pad(uint64_t at) const { return (at + layout_ - 1) / layout_ * layout_; }

  std::string magic_ = "GGUF";
  uint32_t version_ = 3;
  uint64_t layout_ = 32;
  std::optional<uint64_t> n_keys_, n_tensors_;
  std::vector<Key> keys_;
  std::vector<Tensor> tensors_;
};

}  // namespace sluice::test
