// BatchNorm with the residual addition and the activation behind it, forward, again, backward and in inference.
#include <cmath>

#include "kernels/activation.h"
#include "kernels/kernels.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

constexpr int kPartial = 16;  // independent partial sums, so that the compiler may keep them in vectors

PROFL_CLONES double sum_row(const float* x, int64_t count) {
  float partial[kPartial] = {};
  int64_t i = 0;
  for (; i + kPartial <= count; i += kPartial) {
    for (int k = 0; k < kPartial; ++k) partial[k] += x[i + k];
  }
  double total = 0;
  for (int k = 0; k < kPartial; ++k) total += partial[k];
  for (; i < count; ++i) total += x[i];
  return total;
}

PROFL_CLONES double squares_row(const float* x, int64_t count, float mean) {
  float partial[kPartial] = {};
  int64_t i = 0;
  for (; i + kPartial <= count; i += kPartial) {
    for (int k = 0; k < kPartial; ++k) partial[k] += (x[i + k] - mean) * (x[i + k] - mean);
  }
  double total = 0;
  for (int k = 0; k < kPartial; ++k) total += partial[k];
  for (; i < count; ++i) total += static_cast<double>(x[i] - mean) * (x[i] - mean);
  return total;
}

PROFL_CLONES void affine_row(const float* x, int64_t count, float scale, float shift, const float* residual,
                             Activation kind, float* y) {
  // y may be x or the residual itself: every element is read before it is written, so vectors are safe.
  with_activation(kind, [&](auto k) __attribute__((always_inline)) {
    if (residual != nullptr) {
#pragma GCC ivdep
      for (int64_t i = 0; i < count; ++i) {
        y[i] = activate<decltype(k)::value>(x[i] * scale + shift + residual[i], 0.0f);
      }
    } else {
#pragma GCC ivdep
      for (int64_t i = 0; i < count; ++i) y[i] = activate<decltype(k)::value>(x[i] * scale + shift, 0.0f);
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

void apply(const Channels& c, const float* x, const float* weight, const float* bias, const float* mean,
           const float* rstd, const float* residual, Activation kind, float* y) {
  parallel_for(c.batch * c.channels, [&](int64_t task, float*) {
    const int64_t channel = task % c.channels, at = task * c.inner;
    const Affine affine(weight, bias, channel, mean[channel], rstd[channel]);
    affine_row(x + at, c.inner, affine.scale, affine.shift, residual == nullptr ? nullptr : residual + at, kind,
               y + at);
  });
}

struct Sums {
  double gradient = 0, product = 0;
};

// Sums of the gradient before the activation, alone and times (x - mean).
template <Activation kind>
PROFL_INLINE void backward_sums(const float* gradient, const float* x, int64_t count, float scale, float shift,
                                float mean, const float* residual, Sums* sums) {
  float first[kPartial] = {}, second[kPartial] = {};
  int64_t i = 0;
  for (; i + kPartial <= count; i += kPartial) {
    for (int k = 0; k < kPartial; ++k) {
      float y = x[i + k] * scale + shift;
      if (residual != nullptr) y += residual[i + k];
      const float g = through<kind>(gradient[i + k], y, 0.0f);
      first[k] += g;
      second[k] += g * (x[i + k] - mean);
    }
  }
  for (int k = 0; k < kPartial; ++k) {
    sums->gradient += first[k];
    sums->product += second[k];
  }
  for (; i < count; ++i) {
    float y = x[i] * scale + shift;
    if (residual != nullptr) y += residual[i];
    const float g = through<kind>(gradient[i], y, 0.0f);
    sums->gradient += g;
    sums->product += static_cast<double>(g) * (x[i] - mean);
  }
}

PROFL_CLONES void backward_sums_row(const float* gradient, const float* x, int64_t count, float scale, float shift,
                                    float mean, const float* residual, Activation kind, Sums* sums) {
  with_activation(kind, [&](auto activation) __attribute__((always_inline)) {
    constexpr Activation own = decltype(activation)::value;
    if constexpr (!is_costly(own)) {
      backward_sums<own>(gradient, x, count, scale, shift, mean, residual, sums);
    } else {
      // The gradients of some elements first, in a loop that becomes vectors, then their sums.
      constexpr int64_t kTogether = 256;
      for (int64_t i = 0; i < count; i += kTogether) {
        const int64_t here = count - i < kTogether ? count - i : kTogether;
        float g[kTogether];
        if (residual == nullptr) {
          for (int64_t k = 0; k < here; ++k) g[k] = through<own>(gradient[i + k], x[i + k] * scale + shift, 0.0f);
        } else {
          for (int64_t k = 0; k < here; ++k) {
            g[k] = through<own>(gradient[i + k], x[i + k] * scale + shift + residual[i + k], 0.0f);
          }
        }
        backward_sums<Activation::none>(g, x + i, here, scale, shift, mean, nullptr, sums);
      }
    }
  });
}

// `residual` and `to_residual` are there together or not at all.
PROFL_CLONES void backward_row(const float* gradient, const float* x, int64_t count, float scale, float shift,
                               float mean, float offset, float slope, const float* residual, Activation kind,
                               float* to_x, float* to_residual) {
  with_activation(kind, [&](auto k) __attribute__((always_inline)) {
    constexpr Activation own = decltype(k)::value;
    if (residual == nullptr) {
#pragma GCC ivdep
      for (int64_t i = 0; i < count; ++i) {
        const float g = through<own>(gradient[i], x[i] * scale + shift, 0.0f);
        to_x[i] = scale * (g - offset - (x[i] - mean) * slope);
      }
    } else {
#pragma GCC ivdep
      for (int64_t i = 0; i < count; ++i) {
        const float value = x[i], g = through<own>(gradient[i], value * scale + shift + residual[i], 0.0f);
        to_residual[i] = g;
        to_x[i] = scale * (g - offset - (value - mean) * slope);
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
  parallel_for(c.channels, [&](int64_t channel, float*) {
    double sum = 0, squares = 0;
    for (int64_t n = 0; n < c.batch; ++n) sum += sum_row(x + (n * c.channels + channel) * c.inner, c.inner);
    const double average = sum / count;
    const float centre = static_cast<float>(average);
    for (int64_t n = 0; n < c.batch; ++n) {
      squares += squares_row(x + (n * c.channels + channel) * c.inner, c.inner, centre);
    }
    // The centre is the rounded mean; the shift theorem takes the rounding out of the variance.
    const double variance = squares / count - (average - centre) * (average - centre);
    mean[channel] = centre;
    rstd[channel] = static_cast<float>(1.0 / std::sqrt(variance + eps));
    const double unbiased = count > 1 ? variance * count / (count - 1) : variance;
    new_mean[channel] = static_cast<float>(old_mean[channel] * (1.0 - momentum) + momentum * average);
    new_variance[channel] = static_cast<float>(old_variance[channel] * (1.0 - momentum) + momentum * unbiased);
  });
  apply(c, x, weight, bias, mean, rstd, a.read(7), static_cast<Activation>(a.integer(8)), a.write(9));
}

void batch_norm_apply(Context&, Stack stack) {
  const Arguments a(stack);
  apply(Channels(a.tensor(0)), a.read(0), a.read(1), a.read(2), a.read(3), a.read(4), a.read(5),
        static_cast<Activation>(a.integer(6)), a.write(7));
}

void batch_norm_backward(Context&, Stack stack) {
  const Arguments a(stack);
  const Channels c(a.tensor(1));
  const float *gradient = a.read(0), *x = a.read(1), *weight = a.read(2), *bias = a.read(3), *mean = a.read(4);
  const float *rstd = a.read(5), *residual = a.read(6);
  const Activation kind = static_cast<Activation>(a.integer(7));
  float *to_x = a.write(8), *to_residual = a.write(9), *to_weight = a.write(10), *to_bias = a.write(11);
  const double count = static_cast<double>(c.batch * c.inner);
  parallel_for(c.channels, [&](int64_t channel, float*) {
    const Affine affine(weight, bias, channel, mean[channel], rstd[channel]);
    Sums sums;
    for (int64_t n = 0; n < c.batch; ++n) {
      const int64_t at = (n * c.channels + channel) * c.inner;
      backward_sums_row(gradient + at, x + at, c.inner, affine.scale, affine.shift, mean[channel],
                        residual == nullptr ? nullptr : residual + at, kind, &sums);
    }
    if (to_bias != nullptr) to_bias[channel] = static_cast<float>(sums.gradient);
    if (to_weight != nullptr) to_weight[channel] = static_cast<float>(sums.product * rstd[channel]);
    const float offset = static_cast<float>(sums.gradient / count);
    const float slope = static_cast<float>(sums.product * rstd[channel] * rstd[channel] / count);
    for (int64_t n = 0; n < c.batch; ++n) {
      const int64_t at = (n * c.channels + channel) * c.inner;
      backward_row(gradient + at, x + at, c.inner, affine.scale, affine.shift, mean[channel], offset, slope,
                   residual == nullptr ? nullptr : residual + at, kind, to_x + at,
                   to_residual == nullptr ? nullptr : to_residual + at);
    }
  });
}

void batch_norm_frozen(Context&, Stack stack) {
  const Arguments a(stack);
  const Channels c(a.tensor(0));
  const float *x = a.read(0), *weight = a.read(1), *bias = a.read(2), *mean = a.read(3), *variance = a.read(4);
  const float* residual = a.read(6);
  const double eps = a.number(5);
  const Activation kind = static_cast<Activation>(a.integer(7));
  float* y = a.write(8);
  parallel_for(c.batch * c.channels, [&](int64_t task, float*) {
    const int64_t channel = task % c.channels, at = task * c.inner;
    const float rstd = static_cast<float>(1.0 / std::sqrt(variance[channel] + eps));
    const Affine affine(weight, bias, channel, mean == nullptr ? 0.0f : mean[channel], rstd);
    affine_row(x + at, c.inner, affine.scale, affine.shift, residual == nullptr ? nullptr : residual + at, kind,
               y + at);
  });
}

}  // namespace profl
