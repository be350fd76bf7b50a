#include "kernels/convolution/problem/convolution_problem.h"

#include "kernels/activation/activation_runs.h"

namespace profl {
namespace {

// The rectifiers are the activations of most convolutions and cost nothing here.
template <typename Rectify>
PROFL_INLINE void finish(const float* sum, int64_t count, float scale, float shift, const float* residual, float* out,
                         const Rectify& rectify) {
  if (residual != nullptr) {
#pragma GCC ivdep
    for (int64_t j = 0; j < count; ++j) out[j] = rectify(sum[j] * scale + shift + residual[j]);
  } else {
#pragma GCC ivdep
    for (int64_t j = 0; j < count; ++j) out[j] = rectify(sum[j] * scale + shift);
  }
}

PROFL_CLONES void finish_run(const float* sum, int64_t count, float scale, float shift, const float* residual,
                             Activation kind, float* out) {
  switch (kind) {
    case Activation::relu:
      return finish(sum, count, scale, shift, residual, out,
                    [](float v) __attribute__((always_inline)) { return activate<Activation::relu>(v, 0.0f); });
    case Activation::relu6:
      return finish(sum, count, scale, shift, residual, out,
                    [](float v) __attribute__((always_inline)) { return activate<Activation::relu6>(v, 0.0f); });
    default:
      finish(sum, count, scale, shift, residual, out, [](float v) __attribute__((always_inline)) { return v; });
  }
  if (kind != Activation::none) activate_run(kind, out, 0.0f, out, count);
}

}  // namespace

void Problem::flatten() {
  if (!source.pointwise() || out_h != source.height || out_w != source.width) return;
  source.flatten();
  out_w *= out_h;
  out_h = 1;
  // As many sums as outputs: none is left out between two of them, whatever the stride. It may be more than 1 where
  // there is one output in its direction, and would lie across the row now.
  step_h = step_w = 1;
}

void Problem::next_group() {
  source.in += channels * source.height * source.width;
  weight += group_stride;
  const int64_t outputs = rows * out_h * out_w;
  out += outputs;
  if (residual != nullptr) residual += outputs;
  if (scale != nullptr) scale += rows;
  if (shift != nullptr) shift += rows;
}

void Problem::put(const float* sums, int64_t m, int64_t image, int64_t row, int64_t column, int64_t count) const {
  const float factor = scale == nullptr ? 1.0f : scale[m], term = shift == nullptr ? 0.0f : shift[m];
  const int64_t line = (image * out_channels_total + m) * out_h + row * step_h + first_h;
  const int64_t base = line * out_w + column * step_w + first_w;
  if (step_w == 1) {
    finish_run(sums, count, factor, term, residual == nullptr ? nullptr : residual + base, activation, out + base);
    return;
  }
  for (int64_t j = 0; j < count; ++j) {
    const int64_t at = base + j * step_w;
    out[at] = activate(activation, sums[j] * factor + term + (residual == nullptr ? 0.0f : residual[at]));
  }
}

}  // namespace profl
