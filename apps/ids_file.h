// Sequences of token ids from a text file: one a line, ids in decimal with spaces, tabs or commas between.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "sluice/status.h"

namespace sluice::apps {

// Lines without ids are no sequences.
class IdSequences {
 public:
  size_t size() const { return lines_.size(); }
  std::span<const int32_t> operator[](size_t i) const;

  // Tokens of the longest one.
  uint32_t longest() const;

  // invalid_argument, with the line, where an id is not below n_vocab or a sequence does not fit `context`.
  Status check(uint32_t n_vocab, uint32_t context) const;

 private:
  friend Result<IdSequences> read_ids(const std::string& path);
  Status add_line(std::string_view line, size_t number);

  struct Line {
    size_t number;      // in the file, from 1
    size_t begin, end;  // in ids_
  };
  std::string path_;
  std::vector<int32_t> ids_;
  std::vector<Line> lines_;
};

// A file without a single sequence is invalid_argument.
Result<IdSequences> read_ids(const std::string& path);

}  // namespace sluice::apps
