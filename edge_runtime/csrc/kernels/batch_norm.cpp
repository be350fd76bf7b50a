// BatchNorm with the residual addition and the activation behind it, forward, again, backward and in inference.
#include <algorithm>
#include <cmath>

#include "kernels/activation.h"
#include "kernels/kernels.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

constexpr int kPartial = 16;      // independent partial sums, so that the compiler may keep them in vectors
constexpr int64_t kStretch = 64;  // terms of a partial sum in float

// Runs of `count` floats, one in every image, that one call goes through: planes may be small.
struct Rows {
  int64_t rows, stride, count;
};

// Sum of term(x) over all rows: short sums in float, added up in double.
template <typename Term>
PROFL_INLINE double sum_of(const float* x, const Rows& r, const Term& term) {
  float partial[kPartial] = {};
  double total = 0;
  int64_t terms = 0;
  for (int64_t row = 0; row < r.rows; ++row, x += r.stride) {
    int64_t i = 0;
    for (; i + kPartial <= r.count; i += kPartial) {
      for (int k = 0; k < kPartial; ++k) partial[k] += term(x[i + k]);
    }
    for (; i < r.count; ++i) total += static_cast<double>(term(x[i]));
    terms += r.count / kPartial;
    if (terms < kStretch && row + 1 < r.rows) continue;
    for (int k = 0; k < kPartial; ++k) {
      total += static_cast<double>(partial[k]);
      partial[k] = 0.0f;
    }
    terms = 0;
  }
  return total;
}

PROFL_WIDE_CLONES double sum_rows(const float* x, const Rows& rows) {
  return sum_of(x, rows, [](float value) { return value; });
}

PROFL_WIDE_CLONES double squares_rows(const float* x, const Rows& rows, float mean) {
  return sum_of(x, rows, [mean](float value) { return (value - mean) * (value - mean); });
}

// Planes of neighbouring channels, each with its own scale and shift.
PROFL_WIDE_CLONES void affine_planes(const float* x, int64_t planes, int64_t count, const float* scales,
                                     const float* shifts, const float* residual, Activation kind, float* y) {
  // y may be x or the residual itself: every element is read before it is written, so vectors are safe.
  with_activation(kind, [&](auto k) __attribute__((always_inline)) {
    for (int64_t plane = 0; plane < planes; ++plane, x += count, y += count) {
      const float scale = scales[plane], shift = shifts[plane];
      if (residual != nullptr) {
#pragma GCC ivdep
        for (int64_t i = 0; i < count; ++i) {
          y[i] = activate<decltype(k)::value>(x[i] * scale + shift + residual[i], 0.0f);
        }
        residual += count;
      } else {
#pragma GCC ivdep
        for (int64_t i = 0; i < count; ++i) y[i] = activate<decltype(k)::value>(x[i] * scale + shift, 0.0f);
      }
    }
  });
}

struct Affine {
  float scale, shift;
  // Of one channel; weight and bias may be null.
  Affine(const float* weight, const float* bias, int64_t channel, float mean, float rstd)
      : scale(weight == nullptr ? rstd : rstd * weight[channel]),
        shift((bias == nullptr ? 0.0f : bias[channel]) - mean * scale) {}
};

// y = activation of (x scale + shift + residual), `affine(channel)` giving scale and shift.
template <typename AffineOf>
void apply(const Channels& c, const float* x, const AffineOf& affine, const float* residual, Activation kind,
           float* y) {
  constexpr int64_t kMostPlanes = 64, kMostElements = 1 << 13;
  const int64_t planes = std::clamp<int64_t>(kMostElements / std::max<int64_t>(1, c.inner), 1, kMostPlanes);
  const int64_t tasks = (c.channels + planes - 1) / planes;
  parallel_for(c.batch * tasks, [&](int64_t task, float*) {
    const int64_t first = task % tasks * planes, here = std::min(planes, c.channels - first);
    const int64_t at = (task / tasks * c.channels + first) * c.inner;
    float scale[kMostPlanes], shift[kMostPlanes];
    for (int64_t k = 0; k < here; ++k) {
      const Affine own = affine(first + k);
      scale[k] = own.scale;
      shift[k] = own.shift;
    }
    affine_planes(x + at, here, c.inner, scale, shift, residual == nullptr ? nullptr : residual + at, kind, y + at);
  });
}

struct Sums {
  double gradient = 0, product = 0;
};

// What the backward pass of one channel reads: the same places in every tensor.
struct Backward {
  const float *gradient, *x, *residual;  // residual: or none
  float scale, shift, mean;

  // The gradient of what the activation saw.
  template <Activation kind, bool with_residual>
  PROFL_INLINE float through(int64_t i) const {
    if constexpr (with_residual) return profl::through<kind>(gradient[i], x[i] * scale + shift + residual[i], 0.0f);
    return profl::through<kind>(gradient[i], x[i] * scale + shift, 0.0f);
  }
  PROFL_INLINE Backward at(int64_t offset) const {
    return {gradient + offset, x + offset, residual == nullptr ? nullptr : residual + offset, scale, shift, mean};
  }
};

// Sums of the gradient before the activation, alone and times (x - mean).
template <Activation kind, bool with_residual>
PROFL_INLINE void sums_of(const Backward& first_row, const Rows& r, Sums* sums) {
  constexpr int64_t kTogether = 256;
  float first[kPartial] = {}, second[kPartial] = {};
  int64_t terms = 0;
  for (int64_t row = 0; row < r.rows; ++row) {
    const Backward b = first_row.at(row * r.stride);
    for (int64_t begin = 0; begin < r.count; begin += kTogether) {
      const int64_t here = r.count - begin < kTogether ? r.count - begin : kTogether;
      const Backward part = b.at(begin);
      float g[kTogether];
      if constexpr (is_costly(kind)) {
        // In a loop of its own this becomes vectors, together with the sums it would not.
        for (int64_t i = 0; i < here; ++i) g[i] = part.template through<kind, with_residual>(i);
      }
      const auto gradient = [&](int64_t i) __attribute__((always_inline)) {
        if constexpr (is_costly(kind)) return g[i];
        return part.template through<kind, with_residual>(i);
      };
      int64_t i = 0;
      for (; i + kPartial <= here; i += kPartial) {
        for (int k = 0; k < kPartial; ++k) {
          const float own = gradient(i + k);
          first[k] += own;
          second[k] += own * (part.x[i + k] - part.mean);
        }
      }
      for (; i < here; ++i) {
        const float own = gradient(i);
        sums->gradient += own;
        sums->product += static_cast<double>(own) * (part.x[i] - part.mean);
      }
    }
    terms += r.count / kPartial;
    if (terms < kStretch && row + 1 < r.rows) continue;
    for (int k = 0; k < kPartial; ++k) {
      sums->gradient += first[k];
      sums->product += second[k];
      first[k] = second[k] = 0.0f;
    }
    terms = 0;
  }
}

PROFL_WIDE_CLONES void backward_sums(const Backward& b, const Rows& rows, Activation kind, Sums* sums) {
  with_activation(kind, [&](auto k) __attribute__((always_inline)) {
    constexpr Activation own = decltype(k)::value;
    b.residual == nullptr ? sums_of<own, false>(b, rows, sums) : sums_of<own, true>(b, rows, sums);
  });
}

// `residual` and `to_residual` are there together or not at all.
PROFL_WIDE_CLONES void backward_rows(const Backward& first_row, const Rows& rows, float offset, float slope,
                                     Activation kind, float* to_x, float* to_residual) {
  with_activation(kind, [&](auto k) __attribute__((always_inline)) {
    constexpr Activation own = decltype(k)::value;
    const float scale = first_row.scale, shift = first_row.shift, mean = first_row.mean;
    for (int64_t row = 0; row < rows.rows; ++row, to_x += rows.stride) {
      const Backward b = first_row.at(row * rows.stride);
      const float *gradient = b.gradient, *x = b.x, *residual = b.residual;
      if (residual == nullptr) {
#pragma GCC ivdep
        for (int64_t i = 0; i < rows.count; ++i) {
          const float g = through<own>(gradient[i], x[i] * scale + shift, 0.0f);
          to_x[i] = scale * (g - offset - (x[i] - mean) * slope);
        }
      } else {
#pragma GCC ivdep
        for (int64_t i = 0; i < rows.count; ++i) {
          const float value = x[i], g = through<own>(gradient[i], value * scale + shift + residual[i], 0.0f);
          to_residual[i] = g;
          to_x[i] = scale * (g - offset - (value - mean) * slope);
        }
        to_residual += rows.stride;
      }
    }
  });
}

}  // namespace

void batch_norm_train(Context&, Stack stack) {
  const Arguments a(stack);
  const Channels c(a.tensor(0));
  const float *x = a.read(0), *weight = a.read(1), *bias = a.read(2), *old_mean = a.read(3), *old_variance = a.read(4);
  const float momentum = a.number(5);
  const double eps = a.number(6), count = static_cast<double>(c.batch * c.inner);
  float *mean = a.write(10), *rstd = a.write(11), *new_mean = a.write(12), *new_variance = a.write(13);
  const Rows rows{c.batch, c.channels * c.inner, c.inner};
  parallel_for(c.channels, [&](int64_t channel, float*) {
    const double average = sum_rows(x + channel * c.inner, rows) / count;
    const float centre = static_cast<float>(average);
    const double squares = squares_rows(x + channel * c.inner, rows, centre);
    // The centre is the rounded mean; the shift theorem takes the rounding out of the variance.
    const double variance = squares / count - (average - centre) * (average - centre);
    mean[channel] = centre;
    rstd[channel] = static_cast<float>(1.0 / std::sqrt(variance + eps));
    const double unbiased = count > 1 ? variance * count / (count - 1) : variance;
    new_mean[channel] = static_cast<float>(old_mean[channel] * (1.0 - momentum) + momentum * average);
    new_variance[channel] = static_cast<float>(old_variance[channel] * (1.0 - momentum) + momentum * unbiased);
  });
  const auto affine = [=](int64_t channel) { return Affine(weight, bias, channel, mean[channel], rstd[channel]); };
  apply(c, x, affine, a.read(7), static_cast<Activation>(a.integer(8)), a.write(9));
}

void batch_norm_apply(Context&, Stack stack) {
  const Arguments a(stack);
  const float *weight = a.read(1), *bias = a.read(2), *mean = a.read(3), *rstd = a.read(4);
  const auto affine = [=](int64_t channel) { return Affine(weight, bias, channel, mean[channel], rstd[channel]); };
  apply(Channels(a.tensor(0)), a.read(0), affine, a.read(5), static_cast<Activation>(a.integer(6)), a.write(7));
}

void batch_norm_backward(Context&, Stack stack) {
  const Arguments a(stack);
  const Channels c(a.tensor(1));
  const float *gradient = a.read(0), *x = a.read(1), *weight = a.read(2), *bias = a.read(3), *mean = a.read(4);
  const float *rstd = a.read(5), *residual = a.read(6);
  const Activation kind = static_cast<Activation>(a.integer(7));
  float *to_x = a.write(8), *to_residual = a.write(9), *to_weight = a.write(10), *to_bias = a.write(11);
  const double count = static_cast<double>(c.batch * c.inner);
  const Rows rows{c.batch, c.channels * c.inner, c.inner};
  parallel_for(c.channels, [&](int64_t channel, float*) {
    const Affine affine(weight, bias, channel, mean[channel], rstd[channel]);
    const int64_t at = channel * c.inner;
    const Backward b{gradient + at, x + at,       residual == nullptr ? nullptr : residual + at,
                     affine.scale,  affine.shift, mean[channel]};
    Sums sums;
    backward_sums(b, rows, kind, &sums);
    if (to_bias != nullptr) to_bias[channel] = static_cast<float>(sums.gradient);
    if (to_weight != nullptr) to_weight[channel] = static_cast<float>(sums.product * rstd[channel]);
    const float offset = static_cast<float>(sums.gradient / count);
    const float slope = static_cast<float>(sums.product * rstd[channel] * rstd[channel] / count);
    backward_rows(b, rows, offset, slope, kind, to_x + at, to_residual == nullptr ? nullptr : to_residual + at);
  });
}

void batch_norm_frozen(Context&, Stack stack) {
  const Arguments a(stack);
  const Channels c(a.tensor(0));
  const float *x = a.read(0), *weight = a.read(1), *bias = a.read(2), *mean = a.read(3), *variance = a.read(4);
  const float* residual = a.read(6);
  const double eps = a.number(5);
  const Activation kind = static_cast<Activation>(a.integer(7));
  const auto affine = [=](int64_t channel) {
    const float rstd = static_cast<float>(1.0 / std::sqrt(variance[channel] + eps));
    return Affine(weight, bias, channel, mean == nullptr ? 0.0f : mean[channel], rstd);
  };
  apply(c, x, affine, residual, kind, a.write(8));
}

}  // namespace profl
