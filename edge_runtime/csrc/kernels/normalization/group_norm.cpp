// GroupNorm with the activation behind it. Statistics belong to one example and are computed again where they are
// needed: a pass over a group that is in the cache costs less than keeping them.
#include <cmath>

#include "kernels/activation/activation.h"
#include "kernels/common/kernels.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

constexpr int kPartial = 16;    // independent partial sums, so that the compiler may keep them in vectors
constexpr int kTogether = 256;  // elements whose gradients are computed before they are summed

struct Statistics {
  float mean, rstd;
};

PROFL_CLONES Statistics statistics(const float* x, int64_t count, double eps) {
  float partial[kPartial] = {};
  double sum = 0, squares = 0;
  int64_t i = 0;
  for (; i + kPartial <= count; i += kPartial) {
    for (int k = 0; k < kPartial; ++k) partial[k] += x[i + k];
  }
  for (int k = 0; k < kPartial; ++k) sum += partial[k];
  for (; i < count; ++i) sum += x[i];
  const double average = sum / static_cast<double>(count);
  const float centre = static_cast<float>(average);
  float spread[kPartial] = {};
  for (i = 0; i + kPartial <= count; i += kPartial) {
    for (int k = 0; k < kPartial; ++k) spread[k] += (x[i + k] - centre) * (x[i + k] - centre);
  }
  for (int k = 0; k < kPartial; ++k) squares += spread[k];
  for (; i < count; ++i) squares += static_cast<double>(x[i] - centre) * (x[i] - centre);
  // The centre is the rounded mean; the shift theorem takes the rounding out of the variance.
  const double variance = squares / static_cast<double>(count) - (average - centre) * (average - centre);
  return {centre, static_cast<float>(1.0 / std::sqrt(variance + eps))};
}

PROFL_CLONES void apply_row(Activation kind, const float* x, int64_t count, float scale, float shift, float* y) {
  with_activation(kind, [&](auto k) __attribute__((always_inline)) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) y[i] = activate<decltype(k)::value>(x[i] * scale + shift, 0.0f);
  });
}

// Sums of the gradient behind the activation, alone and times (x - mean).
PROFL_CLONES void sums_row(Activation kind, const float* gradient, const float* x, int64_t count, float scale,
                           float shift, float mean, double* plain, double* product) {
  with_activation(kind, [&](auto k) __attribute__((always_inline)) {
    float first[kPartial] = {}, second[kPartial] = {};
    double a = 0, b = 0;
    // The gradient of some elements, then their sums: each loop alone becomes vectors.
    for (int64_t i = 0; i < count; i += kTogether) {
      const int64_t here = count - i < kTogether ? count - i : kTogether;
      float g[kTogether];
      for (int64_t j = 0; j < here; ++j) {
        g[j] = through<decltype(k)::value>(gradient[i + j], x[i + j] * scale + shift, 0.0f);
      }
      int64_t done = 0;
      for (; done + kPartial <= here; done += kPartial) {
        for (int p = 0; p < kPartial; ++p) {
          first[p] += g[done + p];
          second[p] += g[done + p] * (x[i + done + p] - mean);
        }
      }
      for (; done < here; ++done) {
        a += g[done];
        b += static_cast<double>(g[done]) * (x[i + done] - mean);
      }
    }
    for (int p = 0; p < kPartial; ++p) {
      a += first[p];
      b += second[p];
    }
    *plain = a;
    *product = b;
  });
}

PROFL_CLONES void backward_row(Activation kind, const float* gradient, const float* x, int64_t count, float scale,
                               float shift, float mean, float offset, float slope, float* to_x) {
  with_activation(kind, [&](auto k) __attribute__((always_inline)) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      const float g = through<decltype(k)::value>(gradient[i], x[i] * scale + shift, 0.0f);
      to_x[i] = scale * g - offset - (x[i] - mean) * slope;
    }
  });
}

struct Groups {
  Channels c;
  int64_t groups, per_group, floats;
  Groups(const Tensor& x, int64_t count) : c(x), groups(count), per_group(c.channels / count) {
    floats = per_group * c.inner;
  }
};

float weight_of(const float* weight, int64_t channel) { return weight == nullptr ? 1.0f : weight[channel]; }

}  // namespace

void group_norm(Context&, Stack stack) {
  const Arguments a(stack);
  const Groups g(a.tensor(0), a.integer(3));
  const float *x = a.read(0), *weight = a.read(1), *bias = a.read(2);
  const double eps = a.number(4);
  const Activation kind = static_cast<Activation>(a.integer(5));
  float* y = a.write(6);
  parallel_for(g.c.batch * g.groups, [&](int64_t task, float*) {
    const Statistics s = statistics(x + task * g.floats, g.floats, eps);
    for (int64_t own = 0; own < g.per_group; ++own) {
      const int64_t channel = task % g.groups * g.per_group + own, at = task * g.floats + own * g.c.inner;
      const float scale = s.rstd * weight_of(weight, channel);
      apply_row(kind, x + at, g.c.inner, scale, (bias == nullptr ? 0.0f : bias[channel]) - s.mean * scale, y + at);
    }
  });
}

void group_norm_backward(Context& context, Stack stack) {
  const Arguments a(stack);
  const Groups g(a.tensor(1), a.integer(4));
  if (g.per_group > static_cast<int64_t>(kWorkspaceBytesPerThread / (2 * sizeof(double)))) {
    context.fail(Error::NotSupported);
    return;
  }
  const float *gradient = a.read(0), *x = a.read(1), *weight = a.read(2), *bias = a.read(3);
  const double eps = a.number(5);
  const Activation kind = static_cast<Activation>(a.integer(6));
  float *to_x = a.write(7), *to_weight = a.write(8), *to_bias = a.write(9);
  const int64_t inner = g.c.inner;
  // A task is a group of every example, so that it owns its channels' sums.
  parallel_for(g.groups, [&](int64_t group, float* workspace) {
    // Sums over the batch for each channel of the group, gradient and product.
    double* sums = reinterpret_cast<double*>(workspace);
    for (int64_t own = 0; own < 2 * g.per_group; ++own) sums[own] = 0;
    for (int64_t n = 0; n < g.c.batch; ++n) {
      const int64_t first = (n * g.groups + group) * g.floats;
      const Statistics s = statistics(x + first, g.floats, eps);
      double plain = 0, product = 0;  // of gradient times weight
      for (int64_t own = 0; own < g.per_group; ++own) {
        const int64_t channel = group * g.per_group + own, at = first + own * inner;
        const float factor = weight_of(weight, channel), scale = s.rstd * factor;
        const float shift = (bias == nullptr ? 0.0f : bias[channel]) - s.mean * scale;
        double of_gradient, of_product;
        sums_row(kind, gradient + at, x + at, inner, scale, shift, s.mean, &of_gradient, &of_product);
        sums[2 * own] += of_gradient;
        sums[2 * own + 1] += of_product * s.rstd;
        plain += of_gradient * factor;
        product += of_product * factor;
      }
      const double count = static_cast<double>(g.floats), rstd = s.rstd;
      const float offset = static_cast<float>(rstd * plain / count);
      const float slope = static_cast<float>(rstd * rstd * rstd * product / count);
      for (int64_t own = 0; own < g.per_group; ++own) {
        const int64_t channel = group * g.per_group + own, at = first + own * inner;
        const float scale = s.rstd * weight_of(weight, channel);
        const float shift = (bias == nullptr ? 0.0f : bias[channel]) - s.mean * scale;
        backward_row(kind, gradient + at, x + at, inner, scale, shift, s.mean, offset, slope, to_x + at);
      }
    }
    for (int64_t own = 0; own < g.per_group; ++own) {
      if (to_bias != nullptr) to_bias[group * g.per_group + own] = static_cast<float>(sums[2 * own]);
      if (to_weight != nullptr) to_weight[group * g.per_group + own] = static_cast<float>(sums[2 * own + 1]);
    }
  });
}

}  // namespace profl
