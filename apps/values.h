// Values as people write them on a command line. All errors are invalid_argument and quote the text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "sluice/status.h"

namespace sluice::apps {

// "64M", "1.5GiB", "2g", "4096": binary units, an optional B or iB; above 0 and below 2^63.
Result<uint64_t> parse_size(std::string_view text);

// Decimal digits (and a sign for the second), nothing else, within [low, high].
Result<uint64_t> parse_unsigned(std::string_view text, uint64_t low, uint64_t high);
Result<int64_t> parse_integer(std::string_view text, int64_t low, int64_t high);

// A finite number within [low, high].
Result<double> parse_number(std::string_view text, double low, double high);

// Replaces \n \r \t \' \" \\ and \xHH (two hexadecimal digits), as llama.cpp does in -p. Other
// backslashes stay.
std::string process_escapes(std::string_view text);

}  // namespace sluice::apps
