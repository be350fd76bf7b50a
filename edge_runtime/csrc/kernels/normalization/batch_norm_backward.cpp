// The backward pass of BatchNorm with the residual addition and the activation behind it.
#include "kernels/activation/activation_runs.h"
#include "kernels/common/kernels.h"
#include "kernels/normalization/batch_norm.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

struct Sums {
  double gradient, product;
};

// What the backward pass of one channel reads: the same places in every tensor.
struct Backward {
  const float *gradient, *x, *residual;  // residual: or none
  float scale, shift, mean;

  PROFL_INLINE Backward at(int64_t offset) const {
    return {gradient + offset, x + offset, residual == nullptr ? nullptr : residual + offset, scale, shift, mean};
  }
};

constexpr int64_t kTogether = kStretch * kPartial;  // gradients that are computed before they are used

// to[i] = through(gradient, what the activation saw)
template <typename Through>
PROFL_INLINE void with_inputs(const Backward& b, int64_t count, float* to, const Through& through) {
  const float *gradient = b.gradient, *x = b.x, *residual = b.residual, scale = b.scale, shift = b.shift;
  if (residual != nullptr) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) to[i] = through(gradient[i], x[i] * scale + shift + residual[i]);
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) to[i] = through(gradient[i], x[i] * scale + shift);
  }
}

// The gradients of what the activation saw. The rectifiers are the activations of most networks and cost nothing here.
PROFL_WIDE_CLONES void activation_gradients(const Backward& b, Activation kind, int64_t count, float* g) {
  if (kind == Activation::relu) {
    with_inputs(b, count, g, [](float own, float y) __attribute__((always_inline)) {
      return through<Activation::relu>(own, y, 0.0f);
    });
  } else if (kind == Activation::relu6) {
    with_inputs(b, count, g, [](float own, float y) __attribute__((always_inline)) {
      return through<Activation::relu6>(own, y, 0.0f);
    });
  } else {
    with_inputs(b, count, g, [](float, float y) __attribute__((always_inline)) { return y; });
    activation_gradient_run(kind, b.gradient, g, 0.0f, g, count);
  }
}

// Calls body(at, x, gradients, count) for all runs in pieces, which begin at element `at` of every tensor.
template <typename Body>
PROFL_INLINE void for_gradients(const Backward& b, const Rows& rows, Activation kind, const Body& body) {
  float g[kTogether];
  for (int64_t row = 0; row < rows.rows; ++row) {
    for (int64_t begin = 0; begin < rows.count; begin += kTogether) {
      const int64_t here = rows.count - begin < kTogether ? rows.count - begin : kTogether;
      const int64_t at = row * rows.stride + begin;
      const Backward part = b.at(at);
      if (kind != Activation::none) activation_gradients(part, kind, here, g);
      body(at, part.x, kind == Activation::none ? part.gradient : g, here);
    }
  }
}

// Adds count / kPartial terms to each partial sum of gradients, alone and times (x - mean). Written with vectors: left
// to itself, the compiler turns the loops around and adds one by one.
PROFL_INLINE void add_terms(const float* g, const float* x, int64_t count, float mean, float* gradients,
                            float* products) {
  typedef float Vector __attribute__((vector_size(kPartial * sizeof(float)), aligned(4), may_alias));
  Vector first = *reinterpret_cast<const Vector*>(gradients), second = *reinterpret_cast<const Vector*>(products);
  for (int64_t i = 0; i + kPartial <= count; i += kPartial) {
    const Vector gradient = *reinterpret_cast<const Vector*>(g + i);
    first += gradient;
    second += gradient * (*reinterpret_cast<const Vector*>(x + i) - mean);
  }
  *reinterpret_cast<Vector*>(gradients) = first;
  *reinterpret_cast<Vector*>(products) = second;
}

// Sums of the gradient before the activation, alone and times (x - mean).
PROFL_WIDE_CLONES void backward_sums(const Backward& b, const Rows& rows, Activation kind, Sums* sums) {
  float gradients[kPartial] = {}, products[kPartial] = {};
  LongSum gradient, product;
  double gradient_rest = 0, product_rest = 0;
  int64_t terms = 0;
  const float mean = b.mean;
  const auto body = [&](int64_t, const float* x, const float* g, int64_t count) __attribute__((always_inline)) {
    add_terms(g, x, count, mean, gradients, products);
    for (int64_t i = count / kPartial * kPartial; i < count; ++i) {
      gradient_rest += g[i];
      product_rest += static_cast<double>(g[i]) * (x[i] - mean);
    }
    terms += count / kPartial;
    if (terms < kStretch) return;
    gradient.add(gradients);
    product.add(products);
    terms = 0;
  };
  for_gradients(b, rows, kind, body);
  gradient.add(gradients);
  product.add(products);
  *sums = {gradient.total() + gradient_rest, product.total() + product_rest};
}

// `residual` and `to_residual` are there together or not at all.
PROFL_WIDE_CLONES void backward_rows(const Backward& b, const Rows& rows, float offset, float slope, Activation kind,
                                     float* to_x, float* to_residual) {
  const float scale = b.scale, mean = b.mean;
  for_gradients(b, rows, kind,
                [&](int64_t at, const float* x, const float* g, int64_t count) __attribute__((always_inline)) {
                  float *to = to_x + at, *beside = to_residual == nullptr ? nullptr : to_residual + at;
                  if (beside == nullptr) {
#pragma GCC ivdep
                    for (int64_t i = 0; i < count; ++i) to[i] = scale * (g[i] - offset - (x[i] - mean) * slope);
                  } else {
#pragma GCC ivdep
                    for (int64_t i = 0; i < count; ++i) {
                      const float value = x[i], own = g[i];
                      beside[i] = own;
                      to[i] = scale * (own - offset - (value - mean) * slope);
                    }
                  }
                });
}

}  // namespace

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

}  // namespace profl
