// Files of make_gguf, read back by the reader that models are read with, and run.
#include "bench/synthetic.h"

#include <sys/stat.h>
#include <unistd.h>

#include <doctest/doctest.h>
#include <cmath>
#include <cstring>
#include <fstream>
#include <set>

#include "core/bytes.h"
#include "sluice/engine.h"
#include "storage/gguf.h"

namespace sluice::bench {
namespace {

ModelShape tiny(uint32_t layers) {
  ModelShape shape = shape_named("tiny").value();
  shape.n_layers = layers;
  return shape;
}

class Folder {
 public:
  Folder() {
    char name[] = "/tmp/sluice-synthetic-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~Folder() {
    for (const std::string& file : files_) std::remove(file.c_str());
    ::rmdir(path_.c_str());
  }
  std::string file(const std::string& name) {
    files_.insert(path_ + "/" + name);
    return path_ + "/" + name;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::set<std::string> files_;
};

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The value of every weight of a row, straight from the comments of core/dtype.h.
double value_q6(const BlockQ6_K& b, int i) {
  const int half = i / 128, l = i % 32, quarter = i % 128 / 32;
  const int low = b.low[64 * half + (quarter & 1 ? 32 : 0) + l] >> (quarter & 2 ? 4 : 0) & 15;
  const int q = low | (b.high[32 * half + l] >> 2 * quarter & 3) << 4;
  return double{half_to_float(b.d)} * b.scales[i / 16] * (q - 32);
}
double value_q4(const BlockQ4_K& b, int i) {
  const int s = i / 32;
  const int scale = s < 4 ? b.scales[s] & 63 : (b.scales[s + 4] & 15) | b.scales[s - 4] >> 6 << 4;
  const int least = s < 4 ? b.scales[s + 4] & 63 : b.scales[s + 4] >> 4 | b.scales[s] >> 6 << 4;
  const int q = b.nibbles[s / 2 * 32 + i % 32] >> (s % 2 ? 4 : 0) & 15;
  return double{half_to_float(b.d)} * scale * q - double{half_to_float(b.dmin)} * least;
}

template <class Block, class Value>
void check_moments(const std::string& bytes, const storage::GgufTensor& t, Value value) {
  double sum = 0, squares = 0;
  const uint64_t n = t.bytes / sizeof(Block);
  for (uint64_t i = 0; i < n; ++i) {
    Block block;
    std::memcpy(&block, bytes.data() + t.offset + i * sizeof(Block), sizeof block);
    for (int j = 0; j < 256; ++j) {
      const double v = value(block, j);
      sum += v;
      squares += v * v;
    }
  }
  const auto count = static_cast<double>(n * 256);
  const double expected = 1 / std::sqrt(static_cast<double>(t.dims[0]));
  CHECK(std::abs(sum / count) < expected * 0.05);
  CHECK(std::sqrt(squares / count) == doctest::Approx(expected).epsilon(0.1));
}

}  // namespace

TEST_CASE("a synthetic file holds the tensors of its shape, 32-byte aligned, without holes") {
  Folder folder;
  const ModelShape shape = tiny(8);
  const std::string path = folder.file("tiny.gguf");
  const auto written = write_synthetic(shape, path, 1);
  REQUIRE_MESSAGE(written.ok(), written.status().message());
  struct stat st {};
  REQUIRE(::stat(path.c_str(), &st) == 0);
  CHECK(static_cast<uint64_t>(st.st_size) == written->bytes);
  CHECK(st.st_blocks * 512 >= st.st_size);

  const auto gguf = storage::GgufFile::open(path);
  REQUIRE_MESSAGE(gguf.ok(), gguf.status().message());
  const std::vector<ShapeTensor> expected = tensors_of(shape);
  REQUIRE(gguf->tensors().size() == expected.size());
  uint64_t end = gguf->parts()[0].data_offset;
  for (size_t i = 0; i < expected.size(); ++i) {
    const storage::GgufTensor& t = gguf->tensors()[i];
    CAPTURE(expected[i].name);
    CHECK(t.name == expected[i].name);
    CHECK(t.dtype == expected[i].dtype);
    CHECK(t.dims[0] == expected[i].cols);
    CHECK(t.dims[1] == expected[i].rows);
    CHECK(t.bytes == expected[i].bytes());
    CHECK(t.offset == align_up(end, 32));
    end = t.offset + t.bytes;
  }
  CHECK(written->bytes == align_up(end, 32));
}

TEST_CASE("layers with more bits are the first and last eighth and every third between") {
  std::set<std::string> more;
  for (const ShapeTensor& t : tensors_of(shape_named("1b").value()))
    if (t.dtype == DType::q6_k) more.insert(t.name);
  std::set<std::string> expected = {"token_embd.weight"};
  for (const int layer : {0, 1, 4, 7, 10, 13, 14, 15})
    for (const char* name : {"attn_v", "ffn_down"})
      expected.insert("blk." + std::to_string(layer) + "." + name + ".weight");
  CHECK(more == expected);
}

TEST_CASE("the shapes have the sizes of the models") {
  const auto parameters = [](const char* name) {
    uint64_t n = 0;
    for (const ShapeTensor& t : tensors_of(shape_named(name).value())) n += t.rows * t.cols;
    return n;
  };
  // As the models' cards state them, to the last parameter.
  CHECK(parameters("1b") == 1235814400);
  CHECK(parameters("8b") == 8030261248);
  CHECK(parameters("70b") == 70553706496);
  CHECK(!shape_named("9b"));
}

TEST_CASE("weights have no mean and keep the size of activations") {
  Folder folder;
  const std::string path = folder.file("tiny.gguf");
  REQUIRE(write_synthetic(tiny(2), path, 3).ok());
  const std::string bytes = contents(path);
  const auto gguf = storage::GgufFile::open(path);
  REQUIRE(gguf.ok());
  for (const storage::GgufTensor& t : gguf->tensors()) {
    CAPTURE(t.name);
    if (t.dtype == DType::q4_k) check_moments<BlockQ4_K>(bytes, t, value_q4);
    if (t.dtype == DType::q6_k) check_moments<BlockQ6_K>(bytes, t, value_q6);
  }
}

TEST_CASE("the same seed gives the same file, another one another") {
  Folder folder;
  const std::string a = folder.file("a.gguf"), b = folder.file("b.gguf"), c = folder.file("c.gguf");
  REQUIRE(write_synthetic(tiny(1), a, 5).ok());
  REQUIRE(write_synthetic(tiny(1), b, 5).ok());
  REQUIRE(write_synthetic(tiny(1), c, 6).ok());
  CHECK(contents(a) == contents(b));
  CHECK(contents(a) != contents(c));
}

TEST_CASE("a synthetic model runs, and its scores are finite") {
  Folder folder;
  ModelShape shape = tiny(1);
  shape.n_vocab = 5000;  // words of two and three letters, 256 control tokens
  EngineOptions options;
  options.model = folder.file("tiny.gguf");
  options.ram = 64 << 20;
  options.threads = 1;
  options.logit_rows = 8;
  options.machine_file = SLUICE_SOURCE_DIR "/tests/engine/fixtures/machine.json";
  REQUIRE(write_synthetic(shape, options.model, 7).ok());
  auto engine = Engine::open(options);
  REQUIRE_MESSAGE(engine.ok(), engine.status().message());
  CHECK((*engine)->n_vocab() == 5000);
  CHECK((*engine)->prefix() == std::vector<int32_t>{5000 - 256});
  const std::string text = "ab abc zz\n\xf0\x9f\x98\x80";
  const auto tokens = (*engine)->tokenize(text, false);
  REQUIRE(tokens.ok());
  CHECK((*engine)->detokenize(*tokens) == text);
  CHECK(tokens->size() < text.size());  // words are merged
  auto session = (*engine)->new_session();
  REQUIRE(session.ok());
  const auto scores = (*session)->score(*tokens, 1);
  REQUIRE_MESSAGE(scores.ok(), scores.status().message());
  for (const TokenScore& score : *scores) {
    CHECK(std::isfinite(score.logprob));
    CHECK(score.margin >= 0);
  }
}

TEST_CASE("shapes that no file can have are refused, and nothing is left behind") {
  Folder folder;
  const auto refuse = [&](auto&& change, const char* why) {
    ModelShape shape = tiny(1);
    change(shape);
    const std::string path = folder.file("refused.gguf");
    const auto written = write_synthetic(shape, path, 1);
    CHECK(written.status().code() == Code::invalid_argument);
    CHECK(written.status().message().find(why) != std::string::npos);
    CHECK(::access(path.c_str(), F_OK) != 0);
  };
  refuse([](ModelShape& s) { s.hidden_size = 100; }, "multiples of 256");
  refuse([](ModelShape& s) { s.n_layers = 0; }, "multiples of 256");
  refuse([](ModelShape& s) { s.n_kv_heads = 3; }, "4 heads");
  refuse([](ModelShape& s) { s.n_vocab = 257; }, "vocabulary of 257");
  const auto written = write_synthetic(tiny(1), folder.path() + "/absent/x.gguf", 1);
  CHECK(written.status().code() == Code::io_error);
  CHECK(written.status().message().find("absent/x.gguf") != std::string::npos);
}

}  // namespace sluice::bench
