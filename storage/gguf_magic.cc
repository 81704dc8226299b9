#include "storage/gguf_magic.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

#include "core/error.h"

namespace sluice::storage {
namespace {

struct Signature {
  std::string_view text;
  const char* what;
};

// The formats that preceded GGUF stored their magic as a little-endian u32, so it reads backwards.
constexpr std::array signatures = {
    Signature{"FUGG", "a GGUF file with its bytes swapped; convert it to little endian"},
    Signature{"lmgg", "a GGML file, older than GGUF; convert the model again"},
    Signature{"fmgg", "a GGMF file, older than GGUF; convert the model again"},
    Signature{"tjgg", "a GGJT file, older than GGUF; convert the model again"},
    Signature{"algg", "a GGLA adapter, older than GGUF; convert it again"},
    Signature{"PK\x03\x04", "a zip archive, perhaps a PyTorch checkpoint; unpack or convert it"},
    Signature{"\x1f\x8b", "a gzip file; unpack it"},
    Signature{"\x28\xb5\x2f\xfd", "a zstd file; unpack it"},
    Signature{"version https://git-lfs", "a Git LFS pointer, not the file itself; run `git lfs pull`"},
    Signature{"<", "HTML or XML, perhaps an error page of a download; fetch the model again"},
    Signature{"{", "JSON text, perhaps an error message of a download; fetch the model again"},
};

// safetensors: the length of a JSON object as u64, and the object.
bool is_safetensors(std::string_view head) {
  return head.size() >= 10 && head[6] == 0 && head[7] == 0 && head[8] == '{';
}

std::string hex(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) text += fmt::format("{}{:02x}", text.empty() ? "" : " ", static_cast<unsigned char>(c));
  return text;
}

Status not_gguf(const std::string& path, std::string_view what) {
  return error(Code::corrupt, "{}: magic at byte 0: not a GGUF file but {}", path, what);
}

}  // namespace

Status check_magic(const std::string& path, std::span<const std::byte> bytes) {
  std::string_view head(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (head.starts_with("GGUF")) return {};
  if (head.empty()) return error(Code::corrupt, "{}: magic at byte 0: the file is empty", path);
  if (is_safetensors(head)) return not_gguf(path, "a safetensors file; convert the model to GGUF");
  if (head.size() < 4)
    return error(Code::corrupt, "{}: magic at byte 0: the file has only {} bytes", path, head.size());
  if (std::all_of(head.begin(), head.end(), [](char c) { return c == 0; }))
    return not_gguf(path, "zeros, perhaps of a download that did not end; fetch the model again");
  const std::string_view start = head.substr(0, 4);
  while (!head.empty() && std::isspace(static_cast<unsigned char>(head.front()))) head.remove_prefix(1);
  for (const Signature& s : signatures)
    if (head.starts_with(s.text)) return not_gguf(path, s.what);
  return error(Code::corrupt, "{}: magic at byte 0: not a GGUF file; it begins with bytes {}", path, hex(start));
}

Status check_version(const std::string& path, uint32_t version) {
  if (version == 2 || version == 3) return {};
  const uint32_t swapped = __builtin_bswap32(version);
  if (swapped >= 1 && swapped <= 0xffff)
    return error(Code::unsupported,
                 "{}: version at byte 4: a big-endian GGUF file of version {}; convert it to little endian", path,
                 swapped);
  if (version == 0) return error(Code::corrupt, "{}: version at byte 4: is 0", path);
  return error(Code::unsupported, "{}: version at byte 4: GGUF version {} is not read, only 2 and 3; {}", path, version,
               version == 1 ? "convert the model again" : "a newer build may read it");
}

}  // namespace sluice::storage
