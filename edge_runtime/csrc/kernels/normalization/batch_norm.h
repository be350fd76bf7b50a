// What BatchNorm's forward and backward pass have in common: long sums over the images, and the transform of a channel.
#pragma once

#include <cstdint>

#include "kernels/common/inline.h"

namespace profl {

constexpr int kPartial = 16;      // independent partial sums, so that the compiler may keep them in vectors
constexpr int64_t kStretch = 16;  // terms of a partial sum in float

// Runs of `count` floats, one in every image, that one call goes through: planes may be small.
struct Rows {
  int64_t rows, stride, count;
};

// A long sum: short ones in float, added up in double. Both are vectors, so that the short ones may be short.
struct LongSum {
  double totals[kPartial] = {};

  // Takes short sums, which begin at zero again.
  PROFL_INLINE void add(float* partial) {
    for (int k = 0; k < kPartial; ++k) {
      totals[k] += static_cast<double>(partial[k]);
      partial[k] = 0.0f;
    }
  }

  PROFL_INLINE double total() const {
    double sum = 0;
    for (int k = 0; k < kPartial; ++k) sum += totals[k];
    return sum;
  }
};

struct Affine {
  float scale, shift;
  // Of one channel; weight and bias may be null.
  Affine(const float* weight, const float* bias, int64_t channel, float mean, float rstd)
      : scale(weight == nullptr ? rstd : rstd * weight[channel]),
        shift((bias == nullptr ? 0.0f : bias[channel]) - mean * scale) {}
};

}  // namespace profl
