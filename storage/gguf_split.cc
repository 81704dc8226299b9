#include <optional>

#include "core/error.h"
#include "storage/gguf.h"
#include "storage/gguf_header.h"

namespace sluice::storage {
namespace {

std::string part_suffix(uint64_t part, uint64_t count) { return fmt::format("-{:05}-of-{:05}.gguf", part + 1, count); }

// The path of part `to`, given that of part `from`; nothing if that is not named by the pattern.
std::optional<std::string> part_path(const std::string& path, uint64_t from, uint64_t to, uint64_t count) {
  const std::string suffix = part_suffix(from, count);
  if (!path.ends_with(suffix)) return std::nullopt;
  return path.substr(0, path.size() - suffix.size()) + part_suffix(to, count);
}

}  // namespace

// Makes a GgufFile of one part or many.
class GgufAssembly {
 public:
  GgufAssembly(const GgufFile::OpenPart& open_part, const GgufLimits& limits) : open_part_(open_part), left_(limits) {}

  Result<GgufFile> run() {
    SLUICE_ASSIGN_OR_RETURN(GgufFile file, load(0, 1));
    SLUICE_ASSIGN_OR_RETURN(const uint32_t count, count_parts(file));
    for (uint32_t i = 1; i < count; ++i) {
      auto part = load(i, count);
      if (!part.ok()) return part.status().with_context(fmt::format("part {} of {}", i + 1, count));
      SLUICE_RETURN_IF_ERROR(check_part(file, *part, i, count));
      absorb(file, *part, i);
    }
    if (count > 1) SLUICE_RETURN_IF_ERROR(check_total(file));
    SLUICE_RETURN_IF_ERROR(index_tensors(file));
    return file;
  }

 private:
  Result<GgufFile> load(uint32_t part, uint32_t count) {
    SLUICE_ASSIGN_OR_RETURN(const auto source, open_part_(part, count));
    SLUICE_ASSIGN_OR_RETURN(Header header, read_header(*source, left_));
    left_.header_bytes -= std::min(left_.header_bytes, header.bytes.size());
    left_.tensors -= header.tensors.size();
    GgufFile file;
    file.version_ = header.version;
    file.parts_.push_back({source->name(), source->size(), header.data_offset});
    add_keys(file, header);
    add_tensors(file, header);
    file.headers_.push_back(std::move(header.bytes));
    return file;
  }

  static void add_keys(GgufFile& file, const Header& header) {
    file.keys_.reserve(header.keys.size());
    for (const KeyPlace& key : header.keys) file.keys_.push_back({header.name(key), header.value(key)});
    file.keys_by_name_ = sorted_by_name(file.keys_, [](const GgufKey& key) { return key.name; });
  }

  static void add_tensors(GgufFile& file, const Header& header) {
    file.tensors_.reserve(header.tensors.size());
    for (const TensorPlace& t : header.tensors)
      file.tensors_.push_back({header.name(t), t.dtype, t.n_dims, t.dims, 0, header.data_offset + t.offset, t.bytes});
  }

  // How many parts there are, having seen the first. Merged models say 0.
  Result<uint32_t> count_parts(const GgufFile& file) const {
    SLUICE_ASSIGN_OR_RETURN(const uint32_t count, file.get_or<uint32_t>("split.count", 1));
    if (count <= 1) return uint32_t{1};
    if (count > left_.parts)
      return error(Code::over_budget, "{}: key 'split.count' is {}, but at most {} parts are allowed", file.path(),
                   count, left_.parts);
    SLUICE_ASSIGN_OR_RETURN(const uint32_t number, file.get<uint32_t>("split.no"));
    if (number >= count)
      return error(Code::corrupt, "{}: key 'split.no' is {}, but 'split.count' is {}", file.path(), number, count);
    if (number == 0) return count;
    const auto first = part_path(file.path(), number, 0, count);
    return error(Code::invalid_argument, "{}: is part {} of {} of a split model; open the first part instead{}{}",
                 file.path(), number + 1, count, first ? ": " : "", first.value_or(""));
  }

  static Status check_part(const GgufFile& first, const GgufFile& part, uint32_t number, uint32_t count) {
    SLUICE_RETURN_IF_ERROR(check_equal(part, "split.count", count));
    SLUICE_RETURN_IF_ERROR(check_equal(part, "split.no", number));
    for (const char* key : {"split.tensors.count", "general.architecture"}) {
      const GgufValue *ours = part.find(key), *theirs = first.find(key);
      if (ours == nullptr || theirs == nullptr) continue;
      if (ours->as_unsigned() != theirs->as_unsigned() || ours->as_string() != theirs->as_string())
        return error(Code::corrupt, "{}: key '{}' differs from that of {}: not parts of one model", part.path(), key,
                     first.path());
    }
    return {};
  }

  static Status check_equal(const GgufFile& part, std::string_view key, uint32_t expected) {
    SLUICE_ASSIGN_OR_RETURN(const uint32_t found, part.get<uint32_t>(key));
    if (found == expected) return {};
    return error(Code::corrupt, "{}: key '{}' is {}, expected {}: not the part that its name says", part.path(), key,
                 found, expected);
  }

  static void absorb(GgufFile& file, GgufFile& part, uint32_t number) {
    file.parts_.push_back(std::move(part.parts_.front()));
    file.headers_.push_back(std::move(part.headers_.front()));
    for (GgufTensor& tensor : part.tensors_) tensor.file = number;
    file.tensors_.insert(file.tensors_.end(), part.tensors_.begin(), part.tensors_.end());
  }

  static Status check_total(const GgufFile& file) {
    const uint64_t found = file.tensors_.size();
    SLUICE_ASSIGN_OR_RETURN(const uint64_t expected, file.get_or<uint64_t>("split.tensors.count", found));
    if (found == expected) return {};
    return error(Code::corrupt, "{}: key 'split.tensors.count' is {}, but its {} parts hold {} tensors", file.path(),
                 expected, file.parts_.size(), found);
  }

  static Status index_tensors(GgufFile& file) {
    file.tensors_.shrink_to_fit();
    file.tensors_by_name_ = sorted_by_name(file.tensors_, [](const GgufTensor& tensor) { return tensor.name; });
    const auto& order = file.tensors_by_name_;
    for (size_t i = 1; i < order.size(); ++i) {
      const GgufTensor &a = file.tensors_[order[i - 1]], &b = file.tensors_[order[i]];
      if (a.name == b.name)
        return error(Code::corrupt, "{}: tensor {} '{}' at byte {} has the name of the one at byte {} of {}",
                     file.parts_[b.file].path, order[i], shortened(b.name), name_at(file, b), name_at(file, a),
                     file.parts_[a.file].path);
    }
    return {};
  }

  // Where a tensor's name lies in its file.
  static uint64_t name_at(const GgufFile& file, const GgufTensor& tensor) {
    return static_cast<uint64_t>(tensor.name.data() - reinterpret_cast<const char*>(file.headers_[tensor.file].data()));
  }

  const GgufFile::OpenPart& open_part_;
  GgufLimits left_;
};

Result<GgufFile> GgufFile::read(const OpenPart& open_part, const GgufLimits& limits) {
  return GgufAssembly(open_part, limits).run();
}

Result<GgufFile> GgufFile::open(const std::string& path, const GgufLimits& limits) {
  const auto open_part = [&](uint32_t part, uint32_t count) -> Result<std::unique_ptr<ByteSource>> {
    if (part == 0) return open_file_source(path);
    if (const auto other = part_path(path, 0, part, count)) return open_file_source(*other);
    return error(Code::not_found, "{}: the model is split in {} parts; its name must end in {} for them to be found",
                 path, count, part_suffix(0, count));
  };
  return read(open_part, limits);
}

}  // namespace sluice::storage
