// GGUF: the file format of ggml's models, versions 2 and 3, little endian, in one file or split in parts.
//
// A GgufFile is the description of a model: its metadata and where the bytes of each tensor lie. The
// tensors themselves are never read here. Files are hostile until proven otherwise: each size is checked
// against what the file can hold before memory is taken, every error names file, field and byte offset,
// and an opened file keeps these promises: keys and tensor names are unique, valid UTF-8 without control
// characters; no two tensors overlap; each lies inside its file, at a multiple of the file's alignment;
// no size or product wraps. String *values* may hold any bytes.
//
// Memory: the header's bytes once, some 100 bytes for each tensor and 40 for each key; memory_bytes()
// tells. Opening takes, for a moment, up to 4 MiB of read-ahead and those tables two or three times.
// Threads: immutable once made; any thread may read it. Views
// (string_view, GgufValue, GgufStrings, GgufTensor) live as long as the GgufFile, which may be moved.
//
// The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/bytes.h"
#include "core/dtype.h"
#include "sluice/status.h"
#include "storage/gguf_source.h"

namespace sluice::storage {

// The type of a metadata value; the numbers are those of the format.
enum class GgufType : uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12,
};
std::string_view to_string(GgufType type);  // "u32", "bool", "string", …

class GgufArray;

// A view of one metadata value. Each accessor gives nothing where the value is not of that kind.
class GgufValue {
 public:
  GgufValue(GgufType type, const std::byte* data) : data_(data), type_(type) {}

  GgufType type() const { return type_; }
  std::string describe_type() const;  // "u32", "array of 49152 string"

  std::optional<uint64_t> as_unsigned() const;  // any integer type, if not negative
  std::optional<int64_t> as_signed() const;     // any integer type, if it fits
  std::optional<double> as_double() const;      // f32 and f64
  std::optional<bool> as_bool() const;
  std::optional<std::string_view> as_string() const;
  std::optional<GgufArray> as_array() const;

 private:
  const std::byte* data_;
  GgufType type_;
};

// The strings of an array, in order, decoded while walking: a forward range of string_view. There is no
// access by index; who needs that keeps the views.
class GgufStrings {
 public:
  class iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = std::string_view;
    using difference_type = std::ptrdiff_t;
    using pointer = const std::string_view*;
    using reference = std::string_view;

    iterator() = default;
    iterator(const std::byte* at, uint64_t left) : at_(at), left_(left) {}
    std::string_view operator*() const;
    iterator& operator++();
    iterator operator++(int) {
      iterator before = *this;
      ++*this;
      return before;
    }
    bool operator==(const iterator& other) const { return left_ == other.left_; }

   private:
    const std::byte* at_ = nullptr;
    uint64_t left_ = 0;
  };

  GgufStrings(const std::byte* first, uint64_t count) : first_(first), count_(count) {}
  uint64_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  iterator begin() const { return {first_, count_}; }
  iterator end() const { return {nullptr, 0}; }

 private:
  const std::byte* first_;
  uint64_t count_;
};

// A view of an array. Arrays of arrays do not exist here: files that hold them are refused.
class GgufArray {
 public:
  GgufArray(GgufType type, uint64_t size, const std::byte* data) : data_(data), size_(size), type_(type) {}

  GgufType type() const { return type_; }
  uint64_t size() const { return size_; }
  GgufValue operator[](uint64_t i) const;  // i < size(); not for strings
  GgufStrings strings() const;             // type() is string

 private:
  const std::byte* data_;
  uint64_t size_;
  GgufType type_;
};

struct GgufKey {
  std::string_view name;
  GgufValue value;
};

struct GgufTensor {
  std::string_view name;
  DType dtype = DType::f32;
  uint32_t n_dims = 0;
  std::array<uint64_t, 4> dims = {1, 1, 1, 1};  // dims[0] is contiguous; 1 beyond n_dims
  uint32_t file = 0;                            // index into parts()
  uint64_t offset = 0;                          // in that file, from its start
  uint64_t bytes = 0;

  uint64_t elements() const { return dims[0] * dims[1] * dims[2] * dims[3]; }
};

struct GgufPart {
  std::string path;
  uint64_t bytes = 0;        // of the file
  uint64_t data_offset = 0;  // where tensor data begins
};

// What a file may ask for; beyond it opening fails with over_budget, before the memory is taken.
struct GgufLimits {
  uint64_t header_bytes = GiB;  // metadata and tensor descriptions of all parts; at most 2 GiB
  uint64_t keys = 1 << 20;
  uint64_t tensors = 1 << 20;
  uint32_t parts = 4096;
};

class GgufFile {
 public:
  // Opens a model. Of a split model `path` is the first part (…-00001-of-0000N.gguf); the others are
  // found by their names. Files stay open only while their headers are read.
  static Result<GgufFile> open(const std::string& path, const GgufLimits& limits = {});

  // The same from anywhere: `open_part(i, n)` gives part i of n; (0, 1) is asked for first.
  using OpenPart = std::function<Result<std::unique_ptr<ByteSource>>(uint32_t part, uint32_t count)>;
  static Result<GgufFile> read(const OpenPart& open_part, const GgufLimits& limits = {});

  // One file that lies in memory; the bytes are needed only during the call.
  static Result<GgufFile> parse(const std::string& name, std::span<const std::byte> bytes,
                                const GgufLimits& limits = {});

  // Metadata of the first part, in file order.
  std::span<const GgufKey> keys() const { return keys_; }
  const GgufValue* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }

  // The value of a key as T: uint32_t, int32_t, uint64_t, int64_t (from any integer type, if it fits),
  // float, double (from f32 and f64), bool, std::string_view. A key that is missing is not_found, one of
  // another type or out of range is corrupt.
  template <class T>
  Result<T> get(std::string_view key) const;

  // As get(), with a value for a key that is missing; one of the wrong type is still an error.
  template <class T>
  Result<T> get_or(std::string_view key, T fallback) const {
    if (!has(key)) return fallback;
    return get<T>(key);
  }

  // A copy of an array of at most `max_size` numbers or bools, converted as by get().
  template <class T>
  Result<std::vector<T>> get_array(std::string_view key, uint64_t max_size) const;

  Result<GgufStrings> get_strings(std::string_view key) const;

  // Tensors in file order, part by part.
  std::span<const GgufTensor> tensors() const { return tensors_; }
  const GgufTensor* find_tensor(std::string_view name) const;
  Result<const GgufTensor*> tensor(std::string_view name) const;  // not_found names file and tensor

  std::span<const GgufPart> parts() const { return parts_; }
  const std::string& path() const { return parts_.front().path; }
  uint32_t version() const { return version_; }

  // Bytes of memory that this object holds.
  uint64_t memory_bytes() const;

 private:
  friend class GgufAssembly;
  GgufFile() = default;
  Result<GgufValue> required(std::string_view key) const;

  std::vector<GgufPart> parts_;
  std::vector<HeaderBytes> headers_;  // of each part; the views below point into them
  std::vector<GgufKey> keys_;
  std::vector<uint32_t> keys_by_name_;  // indices into keys_, sorted
  std::vector<GgufTensor> tensors_;
  std::vector<uint32_t> tensors_by_name_;
  uint32_t version_ = 0;
};

}  // namespace sluice::storage
