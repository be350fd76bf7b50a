// Softmax over the last dimension and its gradient.
#include "kernels/common/kernels.h"
#include "kernels/common/pieces.h"
#include "kernels/common/row_sums.h"

namespace profl {
namespace {

// y may be x itself.
PROFL_WIDE_CLONES void softmax_row(const float* x, int64_t width, float* y) {
  const float largest = row_maximum(width, [x](int64_t i) { return x[i]; });
#pragma GCC ivdep
  for (int64_t i = 0; i < width; ++i) y[i] = exponential_of_fall(x[i] - largest);
  const float factor = static_cast<float>(1.0 / row_sum(width, [y](int64_t i) { return y[i]; }));
  for (int64_t i = 0; i < width; ++i) y[i] *= factor;
}

// out may be the gradient or y.
PROFL_WIDE_CLONES void softmax_backward_row(const float* gradient, const float* y, int64_t width, float* out) {
  const float product = static_cast<float>(row_sum(width, [=](int64_t i) { return gradient[i] * y[i]; }));
#pragma GCC ivdep
  for (int64_t i = 0; i < width; ++i) out[i] = y[i] * (gradient[i] - product);
}

template <typename Body>
void for_rows(const Tensor& tensor, const Body& body) {
  const int64_t width = tensor.size(tensor.dim() - 1), rows = width == 0 ? 0 : tensor.numel() / width;
  row_pieces(rows, width, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) body(row * width, width);
  });
}

}  // namespace

void softmax(Context&, Stack stack) {
  const Arguments a(stack);
  for_rows(a.tensor(0), [&](int64_t at, int64_t width) { softmax_row(a.read(0) + at, width, a.write(1) + at); });
}

void softmax_backward(Context&, Stack stack) {
  const Arguments a(stack);
  for_rows(a.tensor(0), [&](int64_t at, int64_t width) {
    softmax_backward_row(a.read(0) + at, a.read(1) + at, width, a.write(2) + at);
  });
}

}  // namespace profl
