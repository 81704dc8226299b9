// Random inputs for kernels, and ways to run a kernel on every instruction set and cut into shares.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "cpu/isa.h"

namespace sluice::cpu::test {

inline std::vector<Isa> supported_isas() {
  std::vector<Isa> all;
  for (Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512})
    if (supported(isa)) all.push_back(isa);
  return all;
}

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}

  uint32_t pick(uint32_t least, uint32_t most) { return std::uniform_int_distribution<uint32_t>(least, most)(engine_); }
  template <class T>
  T one_of(std::initializer_list<T> values) {
    return values.begin()[pick(0, static_cast<uint32_t>(values.size()) - 1)];
  }
  float normal(float scale = 1) { return std::normal_distribution<float>(0, scale)(engine_); }
  std::vector<float> normals(size_t n, float scale = 1) {
    std::vector<float> v(n);
    for (float& x : v) x = normal(scale);
    return v;
  }

 private:
  std::mt19937 engine_;
};

// Runs a call as `count` threads would, one share after the other.
template <class Call>
void run_in_shares(Isa isa, const Call& call, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) run(kernels(isa), call, {i, count});
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// |got - want| <= relative * |want| + absolute; false for NaN.
inline bool close(double got, double want, double relative, double absolute = 0) {
  return std::abs(got - want) <= relative * std::abs(want) + absolute;
}

}  // namespace sluice::cpu::test
