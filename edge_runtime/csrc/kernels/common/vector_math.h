// Elementary functions that the compiler turns into vectors: no branch, no call, inlined into every loop that uses
// them.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/common/inline.h"

namespace profl {

PROFL_INLINE float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

PROFL_INLINE int32_t bits_of_float(float value) {
  int32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// 2^exponent for exponents of normal numbers, any float for others: unsigned, because a NaN's are far out of range.
PROFL_INLINE float power_of_two(int32_t exponent) {
  return float_of_bits((static_cast<uint32_t>(exponent) + 127u) << 23);
}

// e^x / 2^n to about one unit in the last place (Cephes' polynomial on [-ln 2 / 2, ln 2 / 2]); n is x / ln 2, rounded.
PROFL_INLINE float exponential_near_zero(float x, float n) {
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return p * (r * r) + r + 1.0f;
}

// e^x for every x: minus infinity, which masks put into scores, gives exactly zero, and NaN and infinity propagate.
PROFL_INLINE float exponential_to_zero(float x) {
  constexpr float kLargest = 88.72283f, kSmallest = -87.33654f, kRound = 12582912.0f;  // 1.5 * 2^23
  const float clamped = x > kLargest ? kLargest : (x < kSmallest ? kSmallest : x);
  const float shifted = clamped * 1.44269504f + kRound;
  const float p = exponential_near_zero(clamped, shifted - kRound);
  // 2^n in two factors: for the largest x, n is 128.
  const int32_t exponent = bits_of_float(shifted) - bits_of_float(kRound);
  const int32_t half = exponent >> 1;
  const float value = p * power_of_two(half) * power_of_two(exponent - half);
  const float high = x > kLargest ? std::numeric_limits<float>::infinity() : value;
  return x < kSmallest ? 0.0f : high;
}

// The same for x that is at most 88, as differences from a row's largest value are: without the cases beyond.
PROFL_INLINE float exponential_of_fall(float x) {
  constexpr float kSmallest = -87.33654f, kRound = 12582912.0f;
  const float clamped = x < kSmallest ? kSmallest : x;
  const float shifted = clamped * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float value = exponential_near_zero(clamped, n) * power_of_two(bits_of_float(shifted) - bits_of_float(kRound));
  return x < kSmallest ? 0.0f : value;
}

// The normal distribution's Phi(x) and, in `tail`, exp(-x^2 / 2): Abramowitz and Stegun 7.1.26, off by at most 1e-7.
PROFL_INLINE float normal_cdf(float x, float* tail) {
  const float z = (x < 0.0f ? -x : x) * 0.70710678f;
  const float t = 1.0f / (1.0f + 0.3275911f * z);
  float p = 1.061405429f;
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  *tail = exponential_of_fall(-z * z);
  const float outside = 0.5f * p * t * *tail;
  return x < 0.0f ? outside : 1.0f - outside;
}

}  // namespace profl
