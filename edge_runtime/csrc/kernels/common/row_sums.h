// Sums along a row of floats: in vectors, with rounding errors that do not grow with the whole length of the row.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/common/vector_math.h"

namespace profl {

// Sum of term(i) for i in [0, count).
template <typename Term>
PROFL_INLINE double row_sum(int64_t count, const Term& term) {
  constexpr int kPartial = 16;
  constexpr int64_t kStretch = 256;
  double total = 0;
  int64_t i = 0;
  while (i + kPartial <= count) {
    float partial[kPartial] = {};
    const int64_t stop = std::min(i + kStretch, i + (count - i) / kPartial * kPartial);
    for (; i < stop; i += kPartial) {
      for (int k = 0; k < kPartial; ++k) partial[k] += term(i + k);
    }
    for (int k = 0; k < kPartial; ++k) total += partial[k];
  }
  for (; i < count; ++i) total += term(i);
  return total;
}

// Largest term(i) for i in [0, count), minus infinity for none. A NaN may be passed over.
template <typename Term>
PROFL_INLINE float row_maximum(int64_t count, const Term& term) {
  constexpr int kPartial = 16;
  float partial[kPartial];
  for (int k = 0; k < kPartial; ++k) partial[k] = -std::numeric_limits<float>::infinity();
  int64_t i = 0;
  for (; i + kPartial <= count; i += kPartial) {
    for (int k = 0; k < kPartial; ++k) {
      const float value = term(i + k);
      partial[k] = value > partial[k] ? value : partial[k];
    }
  }
  float largest = partial[0];
  for (int k = 1; k < kPartial; ++k) largest = partial[k] > largest ? partial[k] : largest;
  for (; i < count; ++i) {
    const float value = term(i);
    largest = value > largest ? value : largest;
  }
  return largest;
}

}  // namespace profl
