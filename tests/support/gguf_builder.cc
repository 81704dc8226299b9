#include "tests/support/gguf_builder.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "core/bytes.h"
#include "core/error.h"

namespace sluice::test {

void append_raw(Bytes& to, const void* from, size_t n) {
  const auto* p = static_cast<const std::byte*>(from);
  to.insert(to.end(), p, p + n);
}

void append_string(Bytes& to, std::string_view text) {
  append(to, uint64_t{text.size()});
  append_raw(to, text.data(), text.size());
}

std::string gguf_part_name(std::string_view stem, uint32_t part, uint32_t count) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", stem, part + 1, count);
}

Status write_file(const std::string& path, std::span<const std::byte> bytes) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return error(Code::io_error, "{}: open: errno {}", path, errno);
  Status status;
  while (!bytes.empty() && status.ok()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno != EINTR) status = error(Code::io_error, "{}: write: errno {}", path, errno);
    if (n > 0) bytes = bytes.subspan(static_cast<size_t>(n));
  }
  if (::close(fd) != 0 && status.ok()) status = error(Code::io_error, "{}: close: errno {}", path, errno);
  return status;
}

GgufBuilder& GgufBuilder::string(std::string_view key, std::string_view value) {
  Bytes bytes;
  append_string(bytes, value);
  return raw_key(key, 8, bytes);
}

GgufBuilder& GgufBuilder::string_array(std::string_view key, std::span<const std::string> values) {
  Bytes bytes;
  for (const std::string& value : values) append_string(bytes, value);
  return array(key, 8, bytes, values.size());
}

GgufBuilder& GgufBuilder::array(std::string_view key, uint32_t element_type, std::span<const std::byte> elements,
                                uint64_t length) {
  Bytes bytes;
  append(bytes, element_type);
  append(bytes, length);
  bytes.insert(bytes.end(), elements.begin(), elements.end());
  return raw_key(key, 9, bytes);
}

GgufBuilder& GgufBuilder::raw_key(std::string_view key, uint32_t type, std::span<const std::byte> value) {
  keys_.push_back({std::string(key), type, Bytes(value.begin(), value.end())});
  return *this;
}

GgufBuilder& GgufBuilder::tensor(std::string_view name, DType type, std::vector<uint64_t> dims, Bytes data) {
  return raw_tensor(name, static_cast<uint32_t>(info(type).ggml_type), std::move(dims), std::move(data));
}

GgufBuilder& GgufBuilder::tensor(std::string_view name, DType type, std::vector<uint64_t> dims) {
  uint64_t elements = 1;
  for (const uint64_t dim : dims) elements *= dim;
  Bytes data(row_bytes(type, elements));
  uint64_t state = 0x9e3779b97f4a7c15;
  for (const char c : name) state = (state ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  for (std::byte& b : data) {
    state = state * 6364136223846793005 + 1442695040888963407;
    b = static_cast<std::byte>(state >> 56);
  }
  return tensor(name, type, std::move(dims), std::move(data));
}

GgufBuilder& GgufBuilder::tensor_f32(std::string_view name, std::vector<uint64_t> dims, std::span<const float> values) {
  const auto bytes = std::as_bytes(values);
  return tensor(name, DType::f32, std::move(dims), Bytes(bytes.begin(), bytes.end()));
}

GgufBuilder& GgufBuilder::raw_tensor(std::string_view name, uint32_t ggml_type, std::vector<uint64_t> dims, Bytes data,
                                     std::optional<uint64_t> offset) {
  tensors_.push_back({std::string(name), ggml_type, std::move(dims), std::move(data), offset});
  return *this;
}

GgufBuilder& GgufBuilder::alignment(uint32_t value) {
  layout_ = is_power_of_two(value) && value <= 64 * MiB ? value : 32;
  return u32("general.alignment", value);
}

GgufBuilder& GgufBuilder::magic(std::string_view text) {
  magic_ = text;
  return *this;
}

GgufBuilder& GgufBuilder::version(uint32_t value) {
  version_ = value;
  return *this;
}

GgufBuilder& GgufBuilder::claim_keys(uint64_t n) {
  n_keys_ = n;
  return *this;
}

GgufBuilder& GgufBuilder::claim_tensors(uint64_t n) {
  n_tensors_ = n;
  return *this;
}

Bytes GgufBuilder::header() const {
  Bytes out;
  for (const char c : magic_) append(out, c);
  append(out, version_);
  append(out, n_tensors_.value_or(tensors_.size()));
  append(out, n_keys_.value_or(keys_.size()));
  for (const Key& key : keys_) {
    append_string(out, key.name);
    append(out, key.type);
    out.insert(out.end(), key.value.begin(), key.value.end());
  }
  uint64_t at = 0;
  for (const Tensor& tensor : tensors_) {
    append_string(out, tensor.name);
    append(out, static_cast<uint32_t>(tensor.dims.size()));
    for (const uint64_t dim : tensor.dims) append(out, dim);
    append(out, tensor.type);
    append(out, tensor.offset.value_or(at));
    at = pad(at + tensor.data.size());
  }
  return out;
}

Bytes GgufBuilder::bytes() const {
  Bytes out = header();
  if (tensors_.empty()) return out;
  out.resize(pad(out.size()));
  const uint64_t data = out.size();
  for (const Tensor& tensor : tensors_) {
    out.resize(data + pad(out.size() - data));
    out.insert(out.end(), tensor.data.begin(), tensor.data.end());
  }
  return out;
}

std::vector<GgufBuilder> GgufBuilder::split(uint32_t parts) const {
  std::vector<GgufBuilder> result(parts);
  for (uint32_t i = 0; i < parts; ++i) {
    GgufBuilder& part = result[i];
    if (i == 0) part = *this;
    part.layout_ = i == 0 ? layout_ : 32;
    part.tensors_.assign(tensors_.begin() + static_cast<ptrdiff_t>(tensors_.size() * i / parts),
                         tensors_.begin() + static_cast<ptrdiff_t>(tensors_.size() * (i + 1) / parts));
    part.u16("split.no", static_cast<uint16_t>(i));
    part.u16("split.count", static_cast<uint16_t>(parts));
    part.i32("split.tensors.count", static_cast<int32_t>(tensors_.size()));
  }
  return result;
}

}  // namespace sluice::test
