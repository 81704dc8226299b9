// Sizes as people write them, and arithmetic on numbers that come from files.
#include "core/bytes.h"

#include <doctest/doctest.h>

#include <string>

namespace sluice {
namespace {

TEST_CASE("bytes: sizes with every unit, in any case, with and without a fraction") {
  const struct {
    const char* text;
    uint64_t bytes;
  } cases[] = {{"0", 0},
               {"4096", 4096},
               {"64M", 64 * MiB},
               {"64m", 64 * MiB},
               {"64MB", 64 * MiB},
               {"64MiB", 64 * MiB},
               {"2g", 2 * GiB},
               {"1.5GiB", GiB + GiB / 2},
               {"1.5k", 1536},
               {"3T", 3072 * GiB},
               {"12B", 12},
               {"12b", 12},
               {"0.5", 0},  // whole bytes
               {".5K", 512},
               {"1.9", 1},
               {"8388607T", 8388607 * (1024 * GiB)}};
  for (const auto& c : cases) {
    const auto size = parse_size(c.text);
    REQUIRE_MESSAGE(size.ok(), c.text);
    CHECK_MESSAGE(*size == c.bytes, c.text);
  }
}

TEST_CASE("bytes: what is no size is refused, with the text in the message") {
  for (const char* text : {"",     " ",   "M",   "-1",  "-0",       "+1",       "1e3",
                           "0x10", "1 M", " 1",  "1M ", "1MM",      "1MiBs",    "1Mi",
                           "1i",   "1x",  "nan", "inf", "infinity", "8388608T", "99999999999999999999",
                           "1..5", "1,5G"}) {
    const auto size = parse_size(text);
    CHECK_MESSAGE(!size.ok(), text);
    if (size.ok()) continue;
    CHECK(size.status().code() == Code::invalid_argument);
    CHECK(size.status().message().find("'" + std::string(text) + "'") != std::string::npos);
  }
}

TEST_CASE("bytes: sizes are printed in the largest unit that is not below one") {
  CHECK(format_size(0) == "0 B");
  CHECK(format_size(1023) == "1023 B");
  CHECK(format_size(1024) == "1.0 KiB");
  CHECK(format_size(MiB + MiB / 2) == "1.5 MiB");
  CHECK(format_size(GiB) == "1.00 GiB");
  CHECK(format_size(5 * GiB / 4) == "1.25 GiB");
  CHECK(format_size(UINT64_MAX) == "17179869184.00 GiB");
}

TEST_CASE("bytes: checked arithmetic gives the exact result or leaves it alone") {
  uint64_t out = 7;
  CHECK(checked_add(UINT64_MAX - 1, 1, out));
  CHECK(out == UINT64_MAX);
  CHECK(!checked_add(UINT64_MAX, 1, out));
  CHECK(checked_mul(uint64_t{1} << 32, (uint64_t{1} << 32) - 1, out));
  CHECK(out == (((uint64_t{1} << 32) - 1) << 32));
  CHECK(!checked_mul(uint64_t{1} << 32, uint64_t{1} << 32, out));
  CHECK(checked_mul(0, UINT64_MAX, out));
  CHECK(out == 0);
}

TEST_CASE("bytes: rounding against division") {
  for (const uint64_t alignment : {1, 2, 64, 4096}) {
    for (uint64_t x = 0; x < 3 * alignment + 3; ++x) {
      CHECK(align_down(x, alignment) == x / alignment * alignment);
      CHECK(align_up(x, alignment) == (x + alignment - 1) / alignment * alignment);
    }
  }
  CHECK(div_up(0, 7) == 0);
  CHECK(div_up(7, 7) == 1);
  CHECK(div_up(8, 7) == 2);
  CHECK(!is_power_of_two(0));
  for (int i = 0; i < 64; ++i) CHECK(is_power_of_two(uint64_t{1} << i));
  for (int i = 2; i < 64; ++i) CHECK(!is_power_of_two((uint64_t{1} << i) - 1));
}

}  // namespace
}  // namespace sluice
