#include "bench/synthetic.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <vector>

#include "core/bytes.h"
#include "core/error.h"

namespace sluice::bench {
namespace {

constexpr uint64_t file_alignment = 32;
constexpr uint64_t pool_bytes = 8 * MiB;
constexpr uint32_t n_bytes = 256;

// splitmix64: any seed gives a good sequence (Steele, Lea & Flood 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint32_t below(uint32_t n) { return static_cast<uint32_t>(((next() >> 32) * n) >> 32); }
  void fill(void* to, size_t n) {
    auto* at = static_cast<std::byte*>(to);
    for (; n > 0; n -= std::min<size_t>(n, 8), at += 8) {
      const uint64_t value = next();
      std::memcpy(at, &value, std::min<size_t>(n, 8));
    }
  }

 private:
  uint64_t state_;
};

// A file being written: what is appended is gathered into large writes, which the disk begins at once.
class Output {
 public:
  static Result<Output> create(const std::string& path) {
    Output out;
    out.path_ = path;
    out.fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (out.fd_ < 0) return out.failed("cannot be created");
    out.buffer_.reserve(pool_bytes);
    return out;
  }
  Output(Output&& other) noexcept
      : path_(std::move(other.path_)),
        buffer_(std::move(other.buffer_)),
        written_(other.written_),
        fd_(std::exchange(other.fd_, -1)) {}
  ~Output() {
    if (fd_ >= 0) ::close(fd_);
  }

  uint64_t size() const { return written_ + buffer_.size(); }

  Status append(const void* data, size_t n) {
    const auto* at = static_cast<const std::byte*>(data);
    while (n > 0) {
      const size_t part = std::min(n, pool_bytes - buffer_.size());
      buffer_.insert(buffer_.end(), at, at + part);
      at += part;
      n -= part;
      if (buffer_.size() == pool_bytes) SLUICE_RETURN_IF_ERROR(flush());
    }
    return {};
  }
  Status pad(uint64_t alignment) {
    constexpr std::byte zeros[file_alignment] = {};
    return append(zeros, align_up(size(), alignment) - size());
  }

  // Everything is on the disk when this returns.
  Status finish() {
    SLUICE_RETURN_IF_ERROR(flush());
    if (::fdatasync(fd_) != 0) return failed("cannot be written");
    if (::close(std::exchange(fd_, -1)) != 0) return failed("cannot be written");
    return {};
  }

 private:
  Output() = default;
  Status failed(const char* what) const {
    return error(Code::io_error, "{}: {}: {}", path_, what, std::strerror(errno));
  }
  Status flush() {
    for (size_t done = 0; done < buffer_.size();) {
      const ssize_t n = ::write(fd_, buffer_.data() + done, buffer_.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return failed("cannot be written");
      done += static_cast<size_t>(n);
    }
    // Only advice: where the filesystem cannot, finish() waits longer.
    ::sync_file_range(fd_, static_cast<off_t>(written_), static_cast<off_t>(buffer_.size()), SYNC_FILE_RANGE_WRITE);
    written_ += buffer_.size();
    buffer_.clear();
    return {};
  }

  std::string path_;
  std::vector<std::byte> buffer_;
  uint64_t written_ = 0;
  int fd_ = -1;
};

// --- the header

class Header {
 public:
  template <class T>
  void number(T value) {
    append(&value, sizeof value);
  }
  void text(std::string_view value) {
    number<uint64_t>(value.size());
    append(value.data(), value.size());
  }
  void u32(std::string_view key, uint32_t value) { pair(key, 4, value); }
  void f32(std::string_view key, float value) { pair(key, 6, value); }
  void boolean(std::string_view key, bool value) { pair(key, 7, uint8_t{value}); }
  void string(std::string_view key, std::string_view value) {
    begin(key, 8);
    text(value);
  }
  void strings(std::string_view key, const std::vector<std::string>& values) {
    begin_array(key, 8, values.size());
    for (const std::string& value : values) text(value);
  }
  void i32s(std::string_view key, const std::vector<int32_t>& values) {
    begin_array(key, 5, values.size());
    append(values.data(), values.size() * sizeof(int32_t));
  }
  uint64_t keys() const { return keys_; }
  const std::string& bytes() const { return bytes_; }

 private:
  void append(const void* data, size_t n) { bytes_.append(static_cast<const char*>(data), n); }
  void begin(std::string_view key, uint32_t type) {
    ++keys_;
    text(key);
    number(type);
  }
  void begin_array(std::string_view key, uint32_t type, uint64_t n) {
    begin(key, 9);
    number(type);
    number(n);
  }
  template <class T>
  void pair(std::string_view key, uint32_t type, T value) {
    begin(key, type);
    number(value);
  }
  std::string bytes_;
  uint64_t keys_ = 0;
};

void add_sizes(Header& h, const ModelShape& s) {
  h.string("general.architecture", "llama");
  h.string("general.name", "synthetic " + s.name);
  h.u32("general.file_type", 15);  // "mostly Q4_K_M"
  h.u32("general.quantization_version", 2);
  h.u32("llama.block_count", s.n_layers);
  h.u32("llama.context_length", s.context_length);
  h.u32("llama.embedding_length", s.hidden_size);
  h.u32("llama.feed_forward_length", s.ffn_size);
  h.u32("llama.attention.head_count", s.n_heads);
  h.u32("llama.attention.head_count_kv", s.n_kv_heads);
  h.u32("llama.attention.key_length", s.head_dim);
  h.u32("llama.attention.value_length", s.head_dim);
  h.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  h.f32("llama.rope.freq_base", 500000.0f);
  h.u32("llama.rope.dimension_count", s.head_dim);
  h.u32("llama.vocab_size", s.n_vocab);
}

// The letter that stands for a byte in byte-level BPE (GPT-2): printable bytes themselves, the others
// from U+0100 on in their order; as UTF-8.
std::string letter_of(uint32_t byte) {
  const auto printable = [](uint32_t b) { return (b > 0x20 && b < 0x7f) || (b > 0xa0 && b != 0xad); };
  uint32_t code = byte;
  if (!printable(byte)) {
    code = 0x100;
    for (uint32_t b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
  }
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
}

struct Words {
  std::vector<std::string> tokens, merges;
  std::vector<int32_t> types;  // 1: normal, 3: control
};

// The bytes, then all words of 2, 3, … letters while there is room, each one letter more than an earlier
// word; the last tokens are control tokens.
Words make_words(uint32_t n_vocab) {
  const uint32_t n_control = n_vocab >= 4096 ? 256 : 2;
  Words words;
  for (uint32_t byte = 0; byte < n_bytes; ++byte) words.tokens.push_back(letter_of(byte));
  std::vector<std::string> stems, longer;
  for (char c = 'a'; c <= 'z'; ++c) stems.emplace_back(1, c);
  while (words.tokens.size() < n_vocab - n_control) {
    longer.clear();
    for (const std::string& stem : stems)
      for (char c = 'a'; c <= 'z' && words.tokens.size() < n_vocab - n_control; ++c) {
        words.tokens.push_back(stem + c);
        words.merges.push_back(stem + ' ' + c);
        longer.push_back(stem + c);
      }
    stems = longer;
  }
  words.types.assign(words.tokens.size(), 1);
  for (uint32_t i = 0; i < n_control; ++i) {
    words.tokens.push_back(i == 0   ? "<|begin_of_text|>"
                           : i == 1 ? "<|end_of_text|>"
                                    : "<|reserved_" + std::to_string(i) + "|>");
    words.types.push_back(3);
  }
  return words;
}

void add_tokenizer(Header& h, uint32_t n_vocab) {
  const Words words = make_words(n_vocab);
  const auto first_control =
      static_cast<uint32_t>(std::find(words.types.begin(), words.types.end(), 3) - words.types.begin());
  h.string("tokenizer.ggml.model", "gpt2");
  h.string("tokenizer.ggml.pre", "llama-bpe");
  h.strings("tokenizer.ggml.tokens", words.tokens);
  h.i32s("tokenizer.ggml.token_type", words.types);
  h.strings("tokenizer.ggml.merges", words.merges);
  h.u32("tokenizer.ggml.bos_token_id", first_control);
  h.u32("tokenizer.ggml.eos_token_id", first_control + 1);
  h.boolean("tokenizer.ggml.add_bos_token", true);
}

std::string make_header(const ModelShape& shape, const std::vector<ShapeTensor>& tensors) {
  Header body;
  add_sizes(body, shape);
  add_tokenizer(body, shape.n_vocab);
  Header h;
  h.number<uint32_t>(0x46554747);  // "GGUF"
  h.number<uint32_t>(3);
  h.number<uint64_t>(tensors.size());
  h.number<uint64_t>(body.keys());
  std::string bytes = h.bytes() + body.bytes();
  Header descriptions;
  uint64_t offset = 0;
  for (const ShapeTensor& t : tensors) {
    descriptions.text(t.name);
    descriptions.number<uint32_t>(t.is_vector() ? 1 : 2);
    descriptions.number(t.cols);
    if (!t.is_vector()) descriptions.number(t.rows);
    descriptions.number(static_cast<uint32_t>(info(t.dtype).ggml_type));
    descriptions.number(offset);
    offset = align_up(offset + t.bytes(), file_alignment);
  }
  return bytes + descriptions.bytes();
}

// --- the weights

// d * scale * (q - 7.5): the minimum is 7.5 times the scale. q deviates by 4.61, scales are 32 to 63.
void fill_block(BlockQ4_K& block, Random& random, double deviation) {
  const double d = deviation / (4.61 * 48);
  block.d = float_to_half(static_cast<float>(d));
  block.dmin = float_to_half(static_cast<float>(7.5 * d));
  for (int s = 0; s < 4; ++s) {
    const uint32_t low = 32 + random.below(32), high = 32 + random.below(32);
    // Sub-blocks s and s+4, scale and minimum alike (see core/dtype.h).
    block.scales[s] = block.scales[s + 4] = static_cast<uint8_t>(low | (high >> 4) << 6);
    block.scales[s + 8] = static_cast<uint8_t>((high & 15) | (high & 15) << 4);
  }
  random.fill(block.nibbles, sizeof block.nibbles);
}

// d * scale * (q - 32): q deviates by 18.5, scales are 64 to 127 of either sign.
void fill_block(BlockQ6_K& block, Random& random, double deviation) {
  block.d = float_to_half(static_cast<float>(deviation / (18.5 * 97)));
  random.fill(&block, offsetof(BlockQ6_K, scales));
  for (int8_t& scale : block.scales) {
    const auto size = static_cast<int8_t>(64 + random.below(64));
    scale = random.below(2) == 0 ? size : static_cast<int8_t>(-size);
  }
}

template <class Block>
std::vector<std::byte> fill_pool(Random& random, double deviation, uint64_t most) {
  // An odd number of blocks, so that rows of a power of two do not fall on each other.
  const uint64_t n = std::max<uint64_t>(1, std::min(pool_bytes, most) / sizeof(Block)) | 1;
  std::vector<std::byte> pool(n * sizeof(Block));
  for (uint64_t i = 0; i < n; ++i) {
    Block block;
    fill_block(block, random, deviation);
    std::memcpy(pool.data() + i * sizeof(Block), &block, sizeof block);
  }
  return pool;
}

class Weights {
 public:
  explicit Weights(uint64_t seed) : random_(seed) {}

  Status write(const ShapeTensor& t, Output& out) {
    if (t.dtype == DType::f32) return write_norm(t, out);
    const std::vector<std::byte>& pool = pool_for(t);
    const uint64_t block = info(t.dtype).block_bytes;
    uint64_t at = random_.below(static_cast<uint32_t>(pool.size() / block)) * block;
    for (uint64_t left = t.bytes(); left > 0; at = 0) {
      const uint64_t n = std::min(left, pool.size() - at);
      SLUICE_RETURN_IF_ERROR(out.append(pool.data() + at, n));
      left -= n;
    }
    return {};
  }

 private:
  const std::vector<std::byte>& pool_for(const ShapeTensor& t) {
    auto& pool = pools_[{t.dtype, t.cols}];
    if (!pool.empty()) return pool;
    const double deviation = 1 / std::sqrt(static_cast<double>(t.cols));
    pool = t.dtype == DType::q4_k ? fill_pool<BlockQ4_K>(random_, deviation, t.bytes())
                                  : fill_pool<BlockQ6_K>(random_, deviation, t.bytes());
    return pool;
  }
  Status write_norm(const ShapeTensor& t, Output& out) {
    std::vector<float> values(t.cols);
    for (float& value : values) value = 0.9f + static_cast<float>(random_.below(1 << 16)) * (0.2f / (1 << 16));
    return out.append(values.data(), values.size() * sizeof(float));
  }

  Random random_;
  std::map<std::pair<DType, uint64_t>, std::vector<std::byte>> pools_;
};

Status check(const ModelShape& s) {
  const uint32_t block = info(DType::q4_k).block_elements;
  const uint64_t q_size = uint64_t{s.n_heads} * s.head_dim;
  if (s.hidden_size == 0 || q_size == 0 || s.ffn_size == 0 || s.n_layers == 0 || s.hidden_size % block != 0 ||
      q_size % block != 0 || s.ffn_size % block != 0)
    return error(Code::invalid_argument, "{}: hidden, attention and FFN sizes must be multiples of {}", s.name, block);
  if (s.n_kv_heads == 0 || s.n_heads % s.n_kv_heads != 0)
    return error(Code::invalid_argument, "{}: {} heads do not share {} KV heads evenly", s.name, s.n_heads,
                 s.n_kv_heads);
  if (s.n_vocab < n_bytes + 2 || s.n_vocab > 400000)
    return error(Code::invalid_argument, "{}: a vocabulary of {} tokens; it can have {} to 400000", s.name, s.n_vocab,
                 n_bytes + 2);
  return {};
}

Result<uint64_t> write_all(const ModelShape& shape, const std::string& path, uint64_t seed) {
  const std::vector<ShapeTensor> tensors = tensors_of(shape);
  SLUICE_ASSIGN_OR_RETURN(Output out, Output::create(path));
  const std::string header = make_header(shape, tensors);
  SLUICE_RETURN_IF_ERROR(out.append(header.data(), header.size()));
  Weights weights(seed);
  for (const ShapeTensor& t : tensors) {
    SLUICE_RETURN_IF_ERROR(out.pad(file_alignment));
    SLUICE_RETURN_IF_ERROR(weights.write(t, out));
  }
  SLUICE_RETURN_IF_ERROR(out.pad(file_alignment));
  SLUICE_RETURN_IF_ERROR(out.finish());
  return out.size();
}

}  // namespace

Result<Written> write_synthetic(const ModelShape& shape, const std::string& path, uint64_t seed) {
  SLUICE_RETURN_IF_ERROR(check(shape));
  const std::string part = path + ".part";
  const auto start = std::chrono::steady_clock::now();
  auto bytes = write_all(shape, part, seed);
  if (bytes.ok() && std::rename(part.c_str(), path.c_str()) != 0)
    bytes = error(Code::io_error, "{}: cannot be renamed: {}", path, std::strerror(errno));
  if (!bytes.ok()) {
    std::remove(part.c_str());
    return bytes.status();
  }
  return Written{*bytes, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()};
}

}  // namespace sluice::bench
