// What the machine can do at best: the rates that kernels are measured against.
#pragma once

#include <cstdint>
#include <span>

#include "cpu/team.h"

namespace sluice::bench {

// Bytes per second at which all threads of the team together read `data`, which no cache should hold.
double read_rate(cpu::Team& team, std::span<const std::byte> data);

// 8-bit operations per second (two for each product that is added up) of the team's threads together:
// vpdpbusd on registers, or without it vpmaddubsw with the additions it needs.
double int8_rate(cpu::Team& team, bool avx512);

// Runs `job` on the team a few times and returns the seconds of a median run.
double seconds_of(cpu::Team& team, cpu::Team::Job job, const void* context);

}  // namespace sluice::bench
