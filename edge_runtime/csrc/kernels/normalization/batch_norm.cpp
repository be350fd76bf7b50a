// BatchNorm with the residual addition and the activation behind it: forward, again and in inference.
#include "kernels/normalization/batch_norm.h"

#include <algorithm>
#include <cmath>

#include "kernels/activation/activation_runs.h"
#include "kernels/common/kernels.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

// Sum of term(x) over all rows.
template <typename Term>
PROFL_INLINE double sum_of(const float* x, const Rows& r, const Term& term) {
  float partial[kPartial] = {};
  LongSum sum;
  double rest = 0;
  int64_t terms = 0;
  for (int64_t row = 0; row < r.rows; ++row, x += r.stride) {
    const int64_t whole = r.count / kPartial * kPartial;
    for (int64_t i = 0; i < whole;) {
      const int64_t here = std::min(kStretch - terms, (whole - i) / kPartial), stop = i + here * kPartial;
      for (; i < stop; i += kPartial) {
        for (int k = 0; k < kPartial; ++k) partial[k] += term(x[i + k]);
      }
      terms += here;
      if (terms < kStretch) break;
      sum.add(partial);
      terms = 0;
    }
    for (int64_t i = whole; i < r.count; ++i) rest += static_cast<double>(term(x[i]));
  }
  sum.add(partial);
  return sum.total() + rest;
}

PROFL_WIDE_CLONES double sum_rows(const float* x, const Rows& rows) {
  return sum_of(x, rows, [](float value) { return value; });
}

PROFL_WIDE_CLONES double squares_rows(const float* x, const Rows& rows, float mean) {
  return sum_of(x, rows, [mean](float value) { return (value - mean) * (value - mean); });
}

// Planes of neighbouring channels, each with its own scale and shift. y may be x or the residual itself: every element
// is read before it is written, so vectors are safe.
PROFL_WIDE_CLONES void affine_planes(const float* x, int64_t planes, int64_t count, const float* scales,
                                     const float* shifts, const float* residual, float* y) {
  for (int64_t plane = 0; plane < planes; ++plane, x += count, y += count) {
    const float scale = scales[plane], shift = shifts[plane];
    if (residual != nullptr) {
#pragma GCC ivdep
      for (int64_t i = 0; i < count; ++i) y[i] = x[i] * scale + shift + residual[i];
      residual += count;
    } else {
#pragma GCC ivdep
      for (int64_t i = 0; i < count; ++i) y[i] = x[i] * scale + shift;
    }
  }
}

// y = activation of (x scale + shift + residual), `affine(channel)` giving scale and shift.
template <typename AffineOf>
void apply(const Channels& c, const float* x, const AffineOf& affine, const float* residual, Activation kind,
           float* y) {
  constexpr int64_t kMostPlanes = 64, kMostElements = 1 << 12;
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
    affine_planes(x + at, here, c.inner, scale, shift, residual == nullptr ? nullptr : residual + at, y + at);
    if (kind != Activation::none) activate_run(kind, y + at, 0.0f, y + at, here * c.inner);
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
