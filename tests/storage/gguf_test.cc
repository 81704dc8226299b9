#include "storage/gguf.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "tests/support/gguf_builder.h"

namespace {

using namespace sluice;
using namespace sluice::storage;
using sluice::test::append;
using sluice::test::append_string;
using sluice::test::Bytes;
using sluice::test::bytes_of;
using sluice::test::GgufBuilder;

// A directory that goes away with the test.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "sluice-gguf-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

Result<GgufFile> parse(const Bytes& bytes, const GgufLimits& limits = {}) {
  return GgufFile::parse("model.gguf", bytes, limits);
}
Result<GgufFile> parse(const GgufBuilder& file) { return parse(file.bytes()); }

// Expects a failure with this code whose message has all of these words in it.
void check_fails(const Result<GgufFile>& result, Code code, const std::vector<std::string>& words) {
  REQUIRE_FALSE(result.ok());
  const std::string& message = result.status().message();
  CAPTURE(message);
  CHECK(to_string(result.status().code()) == to_string(code));
  CHECK(message.find("model") != std::string::npos);
  for (const std::string& word : words) {
    CAPTURE(word);
    CHECK(message.find(word) != std::string::npos);
  }
}

// All 13 types of value, arrays, and tensors of several types.
GgufBuilder sample() {
  GgufBuilder file;
  file.string("general.architecture", "llama").u8("t.u8", 200).i8("t.i8", -100).u16("t.u16", 60000);
  file.i16("t.i16", -30000).u32("t.u32", 4000000000).i32("t.i32", -2000000000).f32("t.f32", 1.5f);
  file.boolean("t.true", true).boolean("t.false", false).u64("t.u64", UINT64_MAX).i64("t.i64", INT64_MIN);
  file.f64("t.f64", 1e300).string("t.empty", "");
  file.u32_array("a.u32", std::vector<uint32_t>{1, 2, 4000000000}).i32_array("a.i32", std::vector<int32_t>{-1, 7});
  file.f32_array("a.f32", std::vector<float>{0.5f, -2.0f}).array("a.none", 4, {}, 0);
  file.string_array("a.strings", std::vector<std::string>{"hello", "", std::string("a\0b", 3), "\xff", "wörld"});
  file.array("a.bool", 7, std::vector<std::byte>{std::byte{1}, std::byte{0}}, 2);
  file.tensor("token_embd.weight", DType::q8_0, {64, 5}).tensor("blk.0.norm", DType::f32, {64});
  file.tensor("blk.0.q", DType::q4_1, {64, 3, 2}).tensor("blk.0.exps", DType::f16, {2, 3, 2, 2});
  return file;
}

TEST_CASE("gguf: every type of value comes back") {
  for (const uint32_t version : {2u, 3u}) {
    auto file = parse(sample().version(version));
    REQUIRE(file.ok());
    CHECK(file->version() == version);
    CHECK(file->keys().size() == 20);
    CHECK(file->keys()[0].name == "general.architecture");
    CHECK(*file->get<std::string_view>("general.architecture") == "llama");
    CHECK(*file->get<uint32_t>("t.u8") == 200);
    CHECK(*file->get<int32_t>("t.i8") == -100);
    CHECK(*file->get<uint64_t>("t.u16") == 60000);
    CHECK(*file->get<int64_t>("t.i16") == -30000);
    CHECK(*file->get<uint32_t>("t.u32") == 4000000000);
    CHECK(*file->get<int64_t>("t.u32") == 4000000000);
    CHECK(*file->get<int32_t>("t.i32") == -2000000000);
    CHECK(*file->get<float>("t.f32") == 1.5f);
    CHECK(*file->get<double>("t.f32") == 1.5);
    CHECK(*file->get<bool>("t.true") == true);
    CHECK(*file->get<bool>("t.false") == false);
    CHECK(*file->get<uint64_t>("t.u64") == UINT64_MAX);
    CHECK(*file->get<int64_t>("t.i64") == INT64_MIN);
    CHECK(*file->get<double>("t.f64") == 1e300);
    CHECK(file->get<std::string_view>("t.empty")->empty());
  }
}

TEST_CASE("gguf: arrays come back") {
  auto file = parse(sample());
  REQUIRE(file.ok());
  CHECK(*file->get_array<uint32_t>("a.u32", 3) == std::vector<uint32_t>{1, 2, 4000000000});
  CHECK(*file->get_array<int64_t>("a.i32", 100) == std::vector<int64_t>{-1, 7});
  CHECK(*file->get_array<float>("a.f32", 2) == std::vector<float>{0.5f, -2.0f});
  CHECK(*file->get_array<bool>("a.bool", 2) == std::vector<bool>{true, false});
  CHECK(file->get_array<int32_t>("a.none", 0)->empty());
  auto strings = file->get_strings("a.strings");
  REQUIRE(strings.ok());
  const std::vector<std::string_view> all(strings->begin(), strings->end());
  REQUIRE(all.size() == strings->size());
  CHECK(all == std::vector<std::string_view>{"hello", "", std::string_view("a\0b", 3), "\xff", "wörld"});
  CHECK(file->find("a.strings")->describe_type() == "array of 5 string");
  CHECK_FALSE(file->find("t.u8")->as_array().has_value());
}

TEST_CASE("gguf: getters say what is wrong") {
  auto file = parse(sample());
  REQUIRE(file.ok());
  const auto message = [](const auto& result) { return result.ok() ? std::string("ok") : result.status().message(); };
  CHECK(message(file->get<uint32_t>("llama.block_count")) == "model.gguf: key 'llama.block_count' is missing");
  CHECK(file->get<uint32_t>("llama.block_count").status().code() == Code::not_found);
  CHECK(message(file->get<uint32_t>("general.architecture")) ==
        "model.gguf: key 'general.architecture' has type string, expected u32");
  CHECK(message(file->get<uint32_t>("t.u64")) ==
        "model.gguf: key 't.u64' is 18446744073709551615, which does not fit u32");
  CHECK(message(file->get<int64_t>("t.u64")) ==
        "model.gguf: key 't.u64' is 18446744073709551615, which does not fit i64");
  CHECK(message(file->get<uint64_t>("t.i8")) == "model.gguf: key 't.i8' is -100, which does not fit u64");
  CHECK(message(file->get<int32_t>("t.u32")) == "model.gguf: key 't.u32' is 4000000000, which does not fit i32");
  CHECK(message(file->get<int32_t>("t.i64")) ==
        "model.gguf: key 't.i64' is -9223372036854775808, which does not fit i32");
  CHECK(message(file->get<float>("t.f64")) == "model.gguf: key 't.f64' is 1e+300, which does not fit f32");
  CHECK(message(file->get<float>("t.u8")) == "model.gguf: key 't.u8' has type u8, expected f32");
  CHECK(message(file->get<bool>("t.u8")) == "model.gguf: key 't.u8' has type u8, expected bool");
  CHECK(message(file->get<uint32_t>("t.true")) == "model.gguf: key 't.true' has type bool, expected u32");
  CHECK(message(file->get<uint32_t>("a.u32")) == "model.gguf: key 'a.u32' has type array of 3 u32, expected u32");
  CHECK(message(file->get_array<uint32_t>("t.u32", 9)) ==
        "model.gguf: key 't.u32' has type u32, expected array of u32");
  CHECK(message(file->get_array<float>("a.u32", 9)) ==
        "model.gguf: key 'a.u32' has type array of 3 u32, expected array of f32");
  CHECK(message(file->get_array<uint32_t>("a.u32", 2)) == "model.gguf: key 'a.u32' has 3 elements, expected at most 2");
  CHECK(message(file->get_array<int32_t>("a.u32", 3)) ==
        "model.gguf: key 'a.u32': element 2 is 4000000000, which does not fit i32");
  CHECK(message(file->get_strings("a.u32")) ==
        "model.gguf: key 'a.u32' has type array of 3 u32, expected array of string");
  CHECK(message(file->tensor("nope")) == "model.gguf: tensor 'nope' is missing");
  CHECK(*file->get_or<uint32_t>("missing", 7) == 7);
  CHECK(*file->get_or<uint32_t>("t.u8", 7) == 200);
  CHECK_FALSE(file->get_or<uint32_t>("general.architecture", 7).ok());
}

TEST_CASE("gguf: tensors lie where the file has their bytes") {
  for (const uint32_t alignment : {8u, 32u, 4096u, 1u << 20}) {
    GgufBuilder builder = sample().alignment(alignment);
    const Bytes bytes = builder.bytes();
    auto file = parse(bytes);
    REQUIRE(file.ok());
    REQUIRE(file->tensors().size() == 4);
    const GgufTensor& q = **file->tensor("blk.0.q");
    CHECK(q.name == "blk.0.q");
    CHECK(q.dtype == DType::q4_1);
    CHECK(q.n_dims == 3);
    CHECK(q.dims == std::array<uint64_t, 4>{64, 3, 2, 1});
    CHECK(q.elements() == 384);
    CHECK(q.bytes == 384 / 32 * 20);
    CHECK(q.offset % alignment == 0);
    // A file with that tensor alone holds the same bytes at its end.
    const Bytes alone = GgufBuilder().tensor("blk.0.q", DType::q4_1, {64, 3, 2}).bytes();
    CHECK(std::equal(alone.end() - 240, alone.end(), bytes.begin() + static_cast<ptrdiff_t>(q.offset)));
    CHECK((**file->tensor("blk.0.exps")).bytes == 48);
    CHECK((**file->tensor("token_embd.weight")).bytes == 64 * 5 / 32 * 34);
    CHECK((**file->tensor("token_embd.weight")).offset == file->parts()[0].data_offset);
    CHECK(file->find_tensor("blk.0.") == nullptr);
    CHECK(file->parts()[0].bytes == bytes.size());
  }
}

TEST_CASE("gguf: views survive a move, and memory is accounted") {
  auto opened = parse(sample());
  REQUIRE(opened.ok());
  const std::string_view architecture = *opened->get<std::string_view>("general.architecture");
  const GgufFile moved = std::move(opened).value();
  CHECK(architecture.data() == moved.get<std::string_view>("general.architecture")->data());
  CHECK(moved.tensors()[3].name == "blk.0.exps");
  const uint64_t header = sample().header().size();
  CHECK(moved.memory_bytes() > header + 20 * sizeof(GgufKey) + 4 * sizeof(GgufTensor));
  CHECK(moved.memory_bytes() < header + 20 * 64 + 4 * 256 + 1024);
}

TEST_CASE("gguf: a vocabulary without tensors") {
  auto file = parse(GgufBuilder().string("general.architecture", "llama"));
  REQUIRE(file.ok());
  CHECK(file->tensors().empty());
  CHECK(parse(GgufBuilder()).ok());
}

TEST_CASE("gguf: a file cut at any byte is an error") {
  const GgufBuilder builder = sample();
  const Bytes whole = builder.bytes();
  const size_t header = builder.header().size();
  REQUIRE(parse(whole).ok());
  for (size_t n = 0; n < whole.size(); ++n) {
    CAPTURE(n);
    const auto file = parse(Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(n)));
    REQUIRE_FALSE(file.ok());
    REQUIRE(file.status().code() == Code::corrupt);
    REQUIRE(file.status().message().starts_with("model.gguf: "));
    REQUIRE(file.status().message().find(" byte") != std::string::npos);
    if (n >= header) REQUIRE(file.status().message().find("past the file's end") != std::string::npos);
  }
}

TEST_CASE("gguf: what is not GGUF is named") {
  const auto named = [](std::string_view text, Code code, const std::string& word) {
    Bytes bytes;
    for (const char c : text) append(bytes, c);
    bytes.resize(std::max<size_t>(bytes.size(), 100));
    check_fails(parse(bytes), code, {"byte 0", word});
  };
  check_fails(parse(Bytes()), Code::corrupt, {"the file is empty"});
  check_fails(parse(bytes_of(uint16_t{0x4747})), Code::corrupt, {"only 2 bytes"});
  named("lmgg", Code::corrupt, "GGML");
  named("tjgg", Code::corrupt, "GGJT");
  named("fmgg", Code::corrupt, "GGMF");
  named("FUGG", Code::corrupt, "swapped");
  named("PK\x03\x04", Code::corrupt, "zip");
  named("\x1f\x8b\x08", Code::corrupt, "gzip");
  named("<!DOCTYPE html><html>", Code::corrupt, "HTML");
  named("\n  <html>", Code::corrupt, "HTML");
  named("{\"error\":\"Not Found\"}", Code::corrupt, "JSON");
  named("version https://git-lfs.github.com/spec/v1\n", Code::corrupt, "git lfs pull");
  named(std::string_view("\x88\x01\0\0\0\0\0\0{\"__metadata__\"", 23), Code::corrupt, "safetensors");
  named(std::string_view("\0\0\0\0", 4), Code::corrupt, "zeros");
  named("GGUX", Code::corrupt, "47 47 55 58");
}

TEST_CASE("gguf: versions") {
  check_fails(parse(sample().version(0)), Code::corrupt, {"version at byte 4"});
  check_fails(parse(sample().version(1)), Code::unsupported, {"version at byte 4", "version 1"});
  check_fails(parse(sample().version(4)), Code::unsupported, {"version at byte 4", "version 4"});
  check_fails(parse(sample().version(UINT32_MAX)), Code::unsupported, {"version at byte 4"});
  check_fails(parse(sample().version(0x03000000)), Code::unsupported, {"big-endian", "version 3"});
}

TEST_CASE("gguf: counts and lengths that cannot be") {
  const auto big = {uint64_t{1} << 63, UINT64_MAX, uint64_t{1} << 60, (uint64_t{1} << 61) + 1, uint64_t{100000}};
  for (const uint64_t n : big) {
    CAPTURE(n);
    const auto text = fmt::format("{}", n);
    check_fails(parse(sample().claim_tensors(n)), Code::corrupt, {"number of tensors at byte 8", text});
    check_fails(parse(sample().claim_keys(n)), Code::corrupt, {"number of keys at byte 16", text});
    for (uint32_t type = 0; type <= 12; ++type) {
      if (type == 9) continue;
      // Key "k": 24 + 8 + 1, its type 4, the element type 4, then the length.
      check_fails(parse(GgufBuilder().array("k", type, {}, n)), Code::corrupt,
                  {"key 0 'k'", "length of the array at byte 41", text});
    }
    check_fails(parse(GgufBuilder().raw_key("k", 8, bytes_of(n))), Code::corrupt,
                {"key 0 'k'", "value at byte 37", text});
    Bytes inner = bytes_of(n);
    check_fails(parse(GgufBuilder().array("k", 8, inner, 1)), Code::corrupt, {"string in the array at byte 49", text});
    Bytes name(24);
    std::copy_n(GgufBuilder().claim_keys(1).header().begin(), 24, name.begin());
    append(name, n);
    name.resize(100, std::byte{'x'});
    check_fails(parse(name), Code::corrupt, {"key 0: length of the name at byte 24", text});
  }
}

TEST_CASE("gguf: counts are measured by the least that an item takes") {
  // After the 24 bytes of the preamble 33 for the tensor, 7 of padding and 32 of data: two, not three.
  GgufBuilder tensors = GgufBuilder().tensor("t", DType::f32, {8});
  check_fails(parse(tensors.claim_tensors(2)), Code::corrupt, {"tensor 1: length of the name at byte 57"});
  check_fails(parse(tensors.claim_tensors(3)), Code::corrupt, {"number of tensors at byte 8", "is 3"});
  // 14 bytes for the key and 18 for the next: two, not three.
  GgufBuilder keys = GgufBuilder().u8("a", 1).string("b", "");
  REQUIRE(parse(keys).ok());
  check_fails(parse(keys.claim_keys(3)), Code::corrupt, {"number of keys at byte 16", "is 3"});
}

TEST_CASE("gguf: limits are checked before memory is taken") {
  // A sparse file that could hold what it claims, far above the limits.
  const TempDir directory;
  const std::string path = directory / "model.gguf";
  const auto sparse = [&](const GgufBuilder& builder) {
    REQUIRE(builder.write(path).ok());
    REQUIRE(::truncate(path.c_str(), off_t{1} << 42) == 0);
    return GgufFile::open(path);
  };
  const uint64_t n = uint64_t{1} << 35;
  check_fails(sparse(sample().claim_tensors(n)), Code::over_budget, {"number of tensors at byte 8"});
  check_fails(sparse(sample().claim_keys(n)), Code::over_budget, {"number of keys at byte 16"});
  check_fails(sparse(GgufBuilder().array("k", 0, {}, n)), Code::over_budget, {"key 0 'k'", "array at byte"});
  check_fails(sparse(GgufBuilder().array("k", 8, {}, n)), Code::over_budget, {"key 0 'k'", "array at byte"});
  check_fails(sparse(GgufBuilder().raw_key("k", 8, bytes_of(n))), Code::over_budget, {"key 0 'k'", "value at byte"});

  const Bytes bytes = sample().bytes();
  const uint64_t header = sample().header().size();
  GgufLimits limits;
  limits.header_bytes = header;
  CHECK(parse(bytes, limits).ok());
  for (limits.header_bytes = 0; limits.header_bytes < header; ++limits.header_bytes)
    REQUIRE(parse(bytes, limits).status().code() == Code::over_budget);
  limits = {};
  limits.keys = 19;
  check_fails(parse(bytes, limits), Code::over_budget, {"number of keys"});
  limits = {};
  limits.tensors = 3;
  check_fails(parse(bytes, limits), Code::over_budget, {"number of tensors"});
}

TEST_CASE("gguf: broken keys") {
  const std::vector<std::string> alignment = {"key 'general.alignment' at byte", "power of two"};
  for (const uint32_t bad : {0u, 1u, 3u, 4u, 24u, 48u, 2u << 20, UINT32_MAX})
    check_fails(parse(sample().alignment(bad)), Code::corrupt, alignment);
  check_fails(parse(sample().u64("general.alignment", uint64_t{1} << 63)), Code::corrupt, alignment);
  check_fails(parse(sample().u64("general.alignment", 1 + (uint64_t{1} << 32) * 32)), Code::corrupt, alignment);
  check_fails(parse(sample().i32("general.alignment", -32)), Code::corrupt, {"general.alignment"});
  check_fails(parse(sample().string("general.alignment", "32")), Code::corrupt, {"general.alignment", "string"});
  check_fails(parse(sample().u8("t.u8", 1)), Code::corrupt, {"key 't.u8' at byte", "repeats the one at byte"});
  check_fails(parse(GgufBuilder().raw_key("k", 13, Bytes(8))), Code::corrupt, {"key 0 'k': type at byte 33", "13"});
  check_fails(parse(GgufBuilder().array("k", 77, Bytes(8), 1)), Code::corrupt, {"key 0 'k'", "at byte 37", "77"});
  check_fails(parse(GgufBuilder().array("k", 9, Bytes(80), 1)), Code::unsupported,
              {"key 0 'k'", "at byte 37", "arrays of arrays"});
  check_fails(parse(GgufBuilder().raw_key("k", 7, bytes_of(uint8_t{2}))), Code::corrupt,
              {"key 0 'k': value at byte 37", "bool of 2"});
  const Bytes bools = {std::byte{1}, std::byte{0}, std::byte{255}};
  check_fails(parse(GgufBuilder().array("k", 7, bools, 3)), Code::corrupt, {"at byte 51", "bool of 255"});
}

TEST_CASE("gguf: names are printable UTF-8") {
  const std::vector<std::string> bad = {std::string("a\0b", 3),
                                        "\x1b[2J",
                                        "a\nb",
                                        "\x7f",
                                        "\x80",
                                        "\xc0\xaf",
                                        "\xe0\x80\xaf",
                                        "\xed\xa0\x80",
                                        "\xf4\x90\x80\x80",
                                        "\xf0\x8f\xbf\xbf",
                                        "\xe2\x82",
                                        "\xc2\x9b",
                                        "\xff",
                                        "\xf8\x88\x80\x80\x80"};
  for (const std::string& name : bad) {
    CAPTURE(name);
    check_fails(parse(GgufBuilder().u64(name, 1)), Code::corrupt, {"key 0: name at byte 32", "UTF-8"});
    check_fails(parse(GgufBuilder().tensor(name, DType::f32, {4})), Code::corrupt,
                {"tensor 0: name at byte 32", "UTF-8"});
  }
  for (const std::string name : {"é", "日本", "😀", "\xc2\xa0", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf", "a b"}) {
    auto file = parse(GgufBuilder().u8(name, 1).tensor(name, DType::f32, {4}));
    REQUIRE(file.ok());
    CHECK(file->has(name));
    CHECK(file->find_tensor(name) != nullptr);
  }
  check_fails(parse(GgufBuilder().u64("", 1)), Code::corrupt, {"key 0: length of the name at byte 24", "is 0"});
  check_fails(parse(GgufBuilder().tensor("", DType::f32, {4})), Code::corrupt,
              {"tensor 0: length of the name at byte 24", "is 0"});
  CHECK(parse(GgufBuilder().u8(std::string(65535, 'k'), 1)).ok());
  check_fails(parse(GgufBuilder().u8(std::string(65536, 'k'), 1)), Code::corrupt, {"key 0", "65536"});
  check_fails(parse(GgufBuilder().tensor(std::string(1025, 'k'), DType::f32, {4})), Code::corrupt,
              {"tensor 0", "1025"});
  // A long name is cut in the message, between characters.
  std::string wide;
  for (int i = 0; i < 100; ++i) wide += "日";
  const auto repeated = parse(GgufBuilder().u8(wide, 1).u8(wide, 2));
  REQUIRE_FALSE(repeated.ok());
  CHECK(repeated.status().message().size() < 250);
  CHECK(repeated.status().message().find("日…'") != std::string::npos);
}

TEST_CASE("gguf: broken tensors") {
  const Bytes data(64);
  const auto one = [&](uint32_t type, std::vector<uint64_t> dims) {
    return parse(GgufBuilder().raw_tensor("t", type, std::move(dims), data));
  };
  REQUIRE(one(0, {4, 4}).ok());
  // Tensor "t": name to byte 33, n_dims to 37, then dims.
  check_fails(one(0, {}), Code::corrupt, {"tensor 0 't': n_dims at byte 33", "is 0"});
  check_fails(one(0, {1, 1, 1, 1, 1}), Code::corrupt, {"tensor 0 't': n_dims at byte 33", "is 5"});
  check_fails(one(0, {0}), Code::corrupt, {"tensor 0 't': dims[0] at byte 37", "is 0"});
  check_fails(one(0, {4, 0}), Code::corrupt, {"tensor 0 't': dims[1] at byte 45", "is 0"});
  check_fails(one(2, {33}), Code::corrupt, {"tensor 0 't': dims[0] at byte 37", "Q4_0", "33"});
  check_fails(one(14, {128, 2}), Code::corrupt, {"tensor 0 't': dims[0] at byte 37", "Q6_K"});
  const uint64_t half = uint64_t{1} << 32;
  check_fails(one(0, {half, half}), Code::corrupt, {"tensor 0 't': dims at byte 37", "63 bits"});
  check_fails(one(0, {half, half, 1, 1}), Code::corrupt, {"dims at byte 37"});
  check_fails(one(0, {uint64_t{1} << 63}), Code::corrupt, {"dims at byte 37"});
  check_fails(one(0, {half / 2, half / 2}), Code::corrupt, {"dims at byte 37"});  // bytes wrap to 0
  check_fails(one(0, {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX}), Code::corrupt, {"dims at byte 37"});
  check_fails(one(2, {uint64_t{1} << 63}), Code::corrupt, {"dims at byte 37", "63 bits"});
  check_fails(one(8, {UINT64_MAX - 31, 2}), Code::corrupt, {"dims at byte 37"});
  check_fails(one(0, {17}), Code::corrupt, {"tensor 't'", "offset at byte 49", "past the file's end"});
  check_fails(one(0, {uint64_t{1} << 61}), Code::corrupt, {"tensor 't'", "past the file's end"});
  for (const auto& [type, name] : std::vector<std::pair<uint32_t, std::string>>{
           {13, "Q5_K"}, {4, "removed type 4"}, {36, "removed type 36"}, {4000, "4000"}, {UINT32_MAX, "4294967295"}})
    check_fails(one(type, {32}), Code::unsupported, {"tensor 0 't': type at byte 45", name});
}

TEST_CASE("gguf: where tensors lie") {
  const Bytes data(64);
  const auto at = [&](std::optional<uint64_t> a, std::optional<uint64_t> b) {
    return parse(GgufBuilder().raw_tensor("a", 0, {16}, data, a).raw_tensor("b", 0, {16}, data, b));
  };
  REQUIRE(at({}, {}).ok());
  CHECK(at(64, 0).ok());  // any order
  check_fails(at({}, 16), Code::corrupt, {"tensor 1 'b': offset at byte 82", "multiple of the alignment 32"});
  check_fails(at({}, 65), Code::corrupt, {"tensor 1 'b': offset"});
  check_fails(at({}, 0), Code::corrupt, {"overlaps", "'a'", "'b'"});
  check_fails(at({}, 32), Code::corrupt, {"tensor 'b': offset at byte 82", "overlaps tensor 'a'"});
  check_fails(at(64, 32), Code::corrupt, {"tensor 'a': offset at byte 49", "overlaps tensor 'b'"});
  check_fails(at({}, 96), Code::corrupt, {"tensor 'b'", "past the file's end"});
  check_fails(at({}, UINT64_MAX - 31), Code::corrupt, {"tensor 'b'", "past the file's end"});
  check_fails(at({}, (UINT64_MAX - 127) / 32 * 32), Code::corrupt, {"tensor 'b'", "past the file's end"});
  check_fails(at({}, uint64_t{1} << 63), Code::corrupt, {"tensor 'b'", "past the file's end"});
  // One that spans others, found though its neighbours in order do not overlap each other.
  GgufBuilder spanning;
  spanning.raw_tensor("big", 0, {48}, Bytes(192), 0).raw_tensor("x", 0, {8}, Bytes(32), 64);
  spanning.raw_tensor("y", 0, {8}, Bytes(32), 128);
  check_fails(parse(spanning), Code::corrupt, {"overlaps tensor 'big'"});
  GgufBuilder twice = sample().tensor("blk.0.norm", DType::f32, {4});
  check_fails(parse(twice), Code::corrupt, {"tensor 4 'blk.0.norm' at byte", "has the name of the one at byte"});
}

TEST_CASE("gguf: files that cannot be opened") {
  const TempDir directory;
  const std::string path = directory / "model.gguf";
  CHECK(GgufFile::open(path).status().code() == Code::not_found);
  REQUIRE(::mkdir(path.c_str(), 0755) == 0);
  CHECK(GgufFile::open(path).status().code() == Code::invalid_argument);
  CHECK(GgufFile::open(path).status().message() == path + ": is a directory; name a .gguf file inside it");
  const std::string fifo = directory / "model.fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0644) == 0);
  CHECK(GgufFile::open(fifo).status().code() == Code::invalid_argument);  // and does not wait for a writer
}

// A source that ends early or fails, as files do.
class FailingSource : public ByteSource {
 public:
  FailingSource(const Bytes& bytes, uint64_t fails_from) : inner_("model.gguf", bytes), fails_from_(fails_from) {}
  const std::string& name() const override { return inner_.name(); }
  uint64_t size() const override { return inner_.size(); }
  Status read(uint64_t offset, std::span<std::byte> out) override {
    if (offset + out.size() > fails_from_) return Status(Code::io_error, "model.gguf: read failed");
    return inner_.read(offset, out);
  }

 private:
  MemorySource inner_;
  uint64_t fails_from_;
};

TEST_CASE("gguf: a read that fails") {
  GgufBuilder builder = sample();
  for (int i = 0; i < 40; ++i) builder.string(fmt::format("filler.{}", i), std::string(10000, 'x'));
  const Bytes bytes = builder.bytes();
  const uint64_t header = builder.header().size();
  REQUIRE(header > 400000);
  const auto open = [&](uint64_t fails_from) {
    return GgufFile::read([&](uint32_t, uint32_t) -> Result<std::unique_ptr<ByteSource>> {
      return std::unique_ptr<ByteSource>(std::make_unique<FailingSource>(bytes, fails_from));
    });
  };
  CHECK(open(bytes.size()).ok());
  for (uint64_t n = 0; n < header; n += 9973) CHECK(open(n).status().code() == Code::io_error);
}

TEST_CASE("gguf: files on disk, read in pieces") {
  const TempDir directory;
  const std::string path = directory / "model.gguf";
  GgufBuilder builder = sample();
  std::vector<std::string> tokens;
  for (int i = 0; i < 300000; ++i) tokens.push_back(fmt::format("token-{}", i));
  builder.string_array("tokenizer.ggml.tokens", tokens);
  REQUIRE(builder.write(path).ok());
  auto file = GgufFile::open(path);
  REQUIRE(file.ok());
  auto strings = file->get_strings("tokenizer.ggml.tokens");
  REQUIRE(strings.ok());
  REQUIRE(strings->size() == tokens.size());
  size_t i = 0, equal = 0;
  for (const std::string_view token : *strings) equal += token == tokens[i++];
  CHECK(equal == tokens.size());
  CHECK(file->path() == path);
  // One copy of the header and little else.
  CHECK(file->memory_bytes() < builder.header().size() + 8192);
}

TEST_CASE("gguf: time grows as n log n") {
  GgufBuilder builder;
  constexpr int n = 200000;
  for (int i = 0; i < n; ++i) {
    const int shuffled = static_cast<int>(int64_t{i} * 7919 % n);
    builder.u8(fmt::format("some.long.prefix.that.all.of.them.share.{}", shuffled), 1);
    builder.raw_tensor(fmt::format("some.long.prefix.that.all.of.them.share.{}", shuffled), 0, {8}, Bytes(32));
  }
  const Bytes bytes = builder.bytes();
  const auto start = std::chrono::steady_clock::now();
  auto file = parse(bytes);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  REQUIRE(file.ok());
  CHECK(file->tensors().size() == n);
  CHECK(file->find_tensor("some.long.prefix.that.all.of.them.share.199999") != nullptr);
  CHECK(file->has("some.long.prefix.that.all.of.them.share.0"));
  // Quadratic time would be minutes; this leaves room for sanitizers on a busy machine.
  CHECK(seconds < 20);
}

TEST_CASE("gguf: split files") {
  const TempDir directory;
  const auto path = [&](uint32_t i, uint32_t n) { return directory / test::gguf_part_name("model", i, n); };
  const GgufBuilder whole = sample();
  const auto write = [&](uint32_t n) {
    const auto parts = whole.split(n);
    for (uint32_t i = 0; i < n; ++i) REQUIRE(parts[i].write(path(i, n)).ok());
    return parts;
  };
  auto single = parse(whole);
  REQUIRE(single.ok());
  for (const uint32_t n : {1u, 2u, 3u, 4u, 7u}) {
    CAPTURE(n);
    write(n);
    auto file = GgufFile::open(path(0, n));
    REQUIRE(file.ok());
    CHECK(file->parts().size() == n);
    CHECK(*file->get<uint32_t>("t.u8") == 200);
    REQUIRE(file->tensors().size() == single->tensors().size());
    for (size_t i = 0; i < single->tensors().size(); ++i) {
      const GgufTensor &a = single->tensors()[i], &b = file->tensors()[i];
      CHECK(a.name == b.name);
      CHECK(a.bytes == b.bytes);
      CHECK(file->find_tensor(a.name) == &b);
      CHECK(file->parts()[b.file].path == path(b.file, n));
      CHECK(b.offset + b.bytes <= std::filesystem::file_size(path(b.file, n)));
    }
  }

  const auto parts = write(3);
  check_fails(GgufFile::open(path(1, 3)), Code::invalid_argument, {path(1, 3), "part 2 of 3", ": " + path(0, 3)});
  check_fails(GgufFile::parse("model.gguf", parts[0].bytes()), Code::unsupported, {"part"});

  // Tensor counts, part numbers and models that disagree; a part that is missing, broken or repeated.
  const auto replaced = [&](uint32_t i, const GgufBuilder& part) {
    REQUIRE(part.write(path(i, 3)).ok());
    auto result = GgufFile::open(path(0, 3));
    REQUIRE(parts[i].write(path(i, 3)).ok());
    return result;
  };
  CHECK(replaced(1, parts[1]).ok());
  check_fails(replaced(1, parts[2]), Code::corrupt, {path(1, 3), "split.no"});
  check_fails(replaced(2, whole.split(4)[2]), Code::corrupt, {path(2, 3), "split.count"});
  check_fails(replaced(2, GgufBuilder()), Code::not_found, {path(2, 3), "split.count"});
  const auto header_of = [](uint16_t no, int32_t tensors) {
    return GgufBuilder().u16("split.no", no).u16("split.count", 3).i32("split.tensors.count", tensors);
  };
  check_fails(replaced(2, header_of(2, 4)), Code::corrupt, {path(0, 3), "split.tensors.count"});
  check_fails(replaced(2, header_of(2, 5)), Code::corrupt, {path(2, 3), "split.tensors.count", "differs"});
  GgufBuilder other = parts[2];
  check_fails(replaced(2, other.string("general.architecture", "gpt2")), Code::corrupt,
              {path(2, 3), "general.architecture"});
  check_fails(replaced(2, header_of(2, 4).tensor("token_embd.weight", DType::f32, {8})), Code::corrupt,
              {"'split.tensors.count' is 4"});
  GgufBuilder repeating =
      header_of(2, 4).tensor("blk.0.q", DType::f32, {8}).tensor("token_embd.weight", DType::f32, {8});
  check_fails(replaced(2, repeating), Code::corrupt, {path(2, 3), path(0, 3), "'token_embd.weight'", "has the name"});
  GgufBuilder cut = parts[2];
  check_fails(replaced(2, cut.version(9)), Code::unsupported, {"part 3 of 3", path(2, 3), "version"});
  std::filesystem::remove(path(2, 3));
  check_fails(GgufFile::open(path(0, 3)), Code::not_found, {"part 3 of 3", path(2, 3)});
  std::filesystem::rename(path(0, 3), directory / "model.gguf");
  check_fails(GgufFile::open(directory / "model.gguf"), Code::not_found, {"-00001-of-00003.gguf"});
}

TEST_CASE("gguf: a merged model says split.count 0; counts that cannot be are errors") {
  CHECK(parse(sample().u16("split.count", 0).i32("split.tensors.count", 99)).ok());
  CHECK(parse(sample().u16("split.count", 1).u16("split.no", 0)).ok());
  check_fails(parse(sample().u16("split.count", 2)), Code::not_found, {"split.no"});
  check_fails(parse(sample().u16("split.count", 2).u16("split.no", 2)), Code::corrupt, {"split.no"});
  check_fails(parse(sample().u16("split.count", 65535).u16("split.no", 0)), Code::over_budget, {"split.count"});
  check_fails(parse(sample().i32("split.count", -1)), Code::corrupt, {"split.count"});
  check_fails(parse(sample().string("split.count", "2")), Code::corrupt, {"split.count", "string"});
}

// Whatever opened keeps its promises.
void check_promises(const GgufFile& file, uint64_t size) {
  uint64_t touched = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    REQUIRE(tensor.offset <= size);
    REQUIRE(tensor.bytes <= size - tensor.offset);
    REQUIRE(tensor.bytes == row_bytes(tensor.dtype, tensor.elements()));
    REQUIRE(file.find_tensor(tensor.name) == &tensor);
  }
  for (const GgufKey& key : file.keys()) {
    REQUIRE(file.find(key.name) == &key.value);
    touched += key.value.as_unsigned().value_or(0) + key.value.describe_type().size();
    for (const char c : key.value.as_string().value_or("")) touched += static_cast<unsigned char>(c);
    const auto array = key.value.as_array();
    if (!array) continue;
    if (array->type() == GgufType::string) {
      for (const std::string_view text : array->strings())
        for (const char c : text) touched += static_cast<unsigned char>(c);
    } else {
      for (uint64_t i = 0; i < array->size(); ++i) touched += (*array)[i].as_unsigned().value_or(1);
    }
  }
  REQUIRE(file.memory_bytes() > 0);
  volatile uint64_t sink = touched;
  (void)sink;
}

TEST_CASE("gguf: random damage never crashes, and what opens is sound") {
  const Bytes whole = sample().bytes();
  const size_t header = sample().header().size();
  std::mt19937_64 random(20240229);
  int opened = 0, refused = 0;
  for (int round = 0; round < 60000; ++round) {
    Bytes bytes = whole;
    const int flips = 1 + static_cast<int>(random() % 4);
    for (int i = 0; i < flips; ++i) {
      const size_t at = random() % header;
      if (random() % 2 == 0) bytes[at] ^= static_cast<std::byte>(1u << random() % 8);
      else bytes[at] = static_cast<std::byte>(random());
    }
    if (random() % 8 == 0) bytes.resize(random() % bytes.size());
    auto file = parse(bytes);
    if (file.ok()) check_promises(*file, bytes.size());
    ++(file.ok() ? opened : refused);
  }
  // Damage to values and to names goes unnoticed, to the structure does not.
  CHECK(opened > 1000);
  CHECK(refused > 10000);
}

TEST_CASE("gguf: SmolLM2-135M-Instruct.Q4_1") {
  const char* named = std::getenv("SLUICE_MODEL");
  const char* home = std::getenv("HOME");
  const std::string path =
      named ? named : std::string(home ? home : "") + "/.cache/sluice/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) {
    MESSAGE("skipped: no model at " << path << "; set SLUICE_MODEL");
    return;
  }
  auto file = GgufFile::open(path);
  REQUIRE_MESSAGE(file.ok(), file.status().message());
  if (file->parts()[0].bytes != 98362432) {
    MESSAGE("skipped: " << path << " is another model");
    return;
  }
  CHECK(file->version() == 3);
  CHECK(file->keys().size() == 33);
  CHECK(file->tensors().size() == 272);
  CHECK(*file->get<std::string_view>("general.architecture") == "llama");
  CHECK(*file->get<uint32_t>("llama.block_count") == 30);
  CHECK(*file->get<uint32_t>("llama.embedding_length") == 576);
  CHECK(*file->get<uint32_t>("llama.attention.head_count_kv") == 3);
  CHECK(*file->get<float>("llama.rope.freq_base") == 100000.0f);
  CHECK(file->get_strings("tokenizer.ggml.tokens")->size() == 49152);
  CHECK(file->get_array<int32_t>("tokenizer.ggml.token_type", 49152)->size() == 49152);
  const GgufTensor& embedding = **file->tensor("token_embd.weight");
  CHECK(embedding.dims == std::array<uint64_t, 4>{576, 49152, 1, 1});
  uint64_t bytes = 0, end = 0;
  for (const GgufTensor& tensor : file->tensors()) {
    bytes += tensor.bytes;
    end = std::max(end, tensor.offset + tensor.bytes);
  }
  CHECK(end == 98362432);  // the file ends with its last tensor
  CHECK(bytes + file->parts()[0].data_offset == 98362432);
  CHECK(file->memory_bytes() < file->parts()[0].data_offset + 64 * KiB);
}

}  // namespace
