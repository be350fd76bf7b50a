// GELU, exact (with the error function) and in its approximation by the hyperbolic tangent.
#include "kernels/activation/activation.h"
#include "kernels/common/kernels.h"
#include "kernels/common/pieces.h"
#include "kernels/common/vector_math.h"

namespace profl {
namespace {

struct Gelu {
  float value, slope;
};

PROFL_INLINE Gelu exact(float x) {
  float tail;
  const float cdf = normal_cdf(x, &tail);
  return {x * cdf, cdf + x * 0.39894228f * tail};
}

// 0.5 x (1 + tanh(u)) = x logistic(2u) with u = sqrt(2 / pi) (x + 0.044715 x^3)
PROFL_INLINE Gelu approximate(float x) {
  constexpr float kFactor = 2.0f * 0.79788456f, kCubic = 0.044715f;
  const float s = logistic(kFactor * (x + kCubic * x * x * x));
  return {x * s, s + x * s * (1.0f - s) * kFactor * (1.0f + 3.0f * kCubic * x * x)};
}

// Outputs may be an input itself, never shifted against it.

PROFL_WIDE_CLONES void gelu_range(const float* x, float* y, int64_t count) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) y[i] = exact(x[i]).value;
}

PROFL_WIDE_CLONES void gelu_tanh_range(const float* x, float* y, int64_t count) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) y[i] = approximate(x[i]).value;
}

PROFL_WIDE_CLONES void gelu_backward_range(const float* gradient, const float* x, float* out, int64_t count) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) out[i] = gradient[i] * exact(x[i]).slope;
}

PROFL_WIDE_CLONES void gelu_tanh_backward_range(const float* gradient, const float* x, float* out, int64_t count) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) out[i] = gradient[i] * approximate(x[i]).slope;
}

}  // namespace

void gelu(Context&, Stack stack) {
  const Arguments a(stack);
  const bool tanh = a.flag(1);
  pieces(a.elements(0), [&](int64_t first, int64_t last) {
    (tanh ? gelu_tanh_range : gelu_range)(a.read(0) + first, a.write(2) + first, last - first);
  });
}

void gelu_backward(Context&, Stack stack) {
  const Arguments a(stack);
  const bool tanh = a.flag(2);
  pieces(a.elements(0), [&](int64_t first, int64_t last) {
    (tanh ? gelu_tanh_backward_range : gelu_backward_range)(a.read(0) + first, a.read(1) + first, a.write(3) + first,
                                                            last - first);
  });
}

}  // namespace profl
