// The part of a GGUF file before its tensor data, checked field by field. Used by gguf.cc alone.
//
// Places are offsets into the header's bytes, which move while they grow; a header is at most 2 GiB, so
// 32 bits hold them.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "sluice/status.h"
#include "storage/gguf.h"
#include "storage/gguf_source.h"

namespace sluice::storage {

// Bytes of one value of a type; 0 for strings and arrays.
uint32_t scalar_bytes(GgufType type);

// Valid UTF-8 with no control characters (C0, DEL, C1): safe to print and to compare.
bool printable_utf8(std::string_view text);

// At most 80 bytes of a name, cut between characters.
std::string shortened(std::string_view name);

struct KeyPlace {
  uint32_t name, name_bytes;
  uint32_t value;
  GgufType type;
};

struct TensorPlace {
  uint32_t name, name_bytes;
  uint32_t offset_at;  // where the field `offset` lies, for messages
  DType dtype;
  uint32_t n_dims;
  std::array<uint64_t, 4> dims;
  uint64_t offset;  // from the start of the data
  uint64_t bytes;
};

struct Header {
  HeaderBytes bytes;
  uint32_t version = 0;
  uint64_t alignment = 32;
  uint64_t data_offset = 0;  // in the file
  std::vector<KeyPlace> keys;
  std::vector<TensorPlace> tensors;

  std::string_view text(uint32_t at, uint32_t size) const {
    return {reinterpret_cast<const char*>(bytes.data()) + at, size};
  }
  std::string_view name(const KeyPlace& key) const { return text(key.name, key.name_bytes); }
  std::string_view name(const TensorPlace& tensor) const { return text(tensor.name, tensor.name_bytes); }
  GgufValue value(const KeyPlace& key) const { return GgufValue(key.type, bytes.data() + key.value); }
};

// Reads and checks all of it: keys unique, tensors within the file and apart from each other. Names of
// tensors may still repeat.
Result<Header> read_header(ByteSource& source, const GgufLimits& limits);

// Indices of `items` sorted by their member `name`, equal names in order of index.
template <class Item, class Name>
std::vector<uint32_t> sorted_by_name(const std::vector<Item>& items, Name name) {
  std::vector<uint32_t> order(items.size());
  for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    const int c = name(items[a]).compare(name(items[b]));
    return c != 0 ? c < 0 : a < b;
  });
  return order;
}

}  // namespace sluice::storage
