// Softmax over the last dimension and its gradient.
#include <algorithm>

#include "kernels/kernels.h"
#include "kernels/row_sums.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

constexpr int64_t kElements = 1 << 13;  // of one task, at least a row

// y may be x itself.
PROFL_CLONES void softmax_row(const float* x, int64_t width, float* y) {
  const float largest = row_maximum(width, [x](int64_t i) { return x[i]; });
#pragma GCC ivdep
  for (int64_t i = 0; i < width; ++i) y[i] = vector_exp(x[i] - largest);
  const float factor = static_cast<float>(1.0 / row_sum(width, [y](int64_t i) { return y[i]; }));
  for (int64_t i = 0; i < width; ++i) y[i] *= factor;
}

// out may be the gradient or y.
PROFL_CLONES void softmax_backward_row(const float* gradient, const float* y, int64_t width, float* out) {
  const float product = static_cast<float>(row_sum(width, [=](int64_t i) { return gradient[i] * y[i]; }));
#pragma GCC ivdep
  for (int64_t i = 0; i < width; ++i) out[i] = y[i] * (gradient[i] - product);
}

template <typename Body>
void for_rows(const Tensor& tensor, const Body& body) {
  const int64_t width = tensor.size(tensor.dim() - 1), rows = width == 0 ? 0 : tensor.numel() / width;
  const int64_t together = std::max<int64_t>(1, kElements / std::max<int64_t>(1, width));
  parallel_for((rows + together - 1) / together, [&](int64_t task, float*) {
    const int64_t stop = std::min(rows, (task + 1) * together);
    for (int64_t row = task * together; row < stop; ++row) body(row * width, width);
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
