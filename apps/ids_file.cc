#include "apps/ids_file.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <string_view>

#include "apps/input.h"
#include "apps/text.h"

namespace sluice::apps {
namespace {

constexpr std::string_view between = " \t\r,";

Status wrong(const std::string& path, size_t line, const std::string& what) {
  return Status(Code::invalid_argument, join({path, ": line ", std::to_string(line), ": ", what}));
}

}  // namespace

std::span<const int32_t> IdSequences::operator[](size_t i) const {
  return std::span(ids_).subspan(lines_[i].begin, lines_[i].end - lines_[i].begin);
}

uint32_t IdSequences::longest() const {
  size_t most = 0;
  for (const Line& line : lines_) most = std::max(most, line.end - line.begin);
  return static_cast<uint32_t>(std::min<size_t>(most, std::numeric_limits<uint32_t>::max()));
}

Status IdSequences::check(uint32_t n_vocab, uint32_t context) const {
  for (size_t i = 0; i < size(); ++i) {
    const auto ids = (*this)[i];
    if (ids.size() > context)
      return wrong(path_, lines_[i].number,
                   std::to_string(ids.size()) + " tokens do not fit the context of " + std::to_string(context) +
                       "; give a larger -c");
    for (const int32_t id : ids)
      if (static_cast<uint32_t>(id) >= n_vocab)
        return wrong(
            path_, lines_[i].number,
            join({"token ", std::to_string(id), " is not in the model's vocabulary of ", std::to_string(n_vocab)}));
  }
  return {};
}

Status IdSequences::add_line(std::string_view line, size_t number) {
  const size_t begin = ids_.size();
  for (;;) {
    line.remove_prefix(std::min(line.find_first_not_of(between), line.size()));
    if (line.empty()) break;
    const std::string_view word = line.substr(0, line.find_first_of(between));
    int32_t id = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size() || id < 0)
      return wrong(path_, number, join({"'", word.substr(0, 40), "' is not a token id"}));
    ids_.push_back(id);
    line.remove_prefix(word.size());
  }
  if (ids_.size() != begin) lines_.push_back({number, begin, ids_.size()});
  return {};
}

Result<IdSequences> read_ids(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, read_file(path, max_text));
  IdSequences sequences;
  sequences.path_ = path;
  std::string_view rest = text;
  for (size_t number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    SLUICE_RETURN_IF_ERROR(sequences.add_line(line, number));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
  }
  if (sequences.size() == 0) return Status(Code::invalid_argument, path + ": holds no token ids");
  return sequences;
}

}  // namespace sluice::apps
