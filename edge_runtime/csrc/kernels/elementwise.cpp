// Element by element: ReLU, addition, the optimizer step, filling; and sums over everything but the channel.
#include <algorithm>

#include "kernels/kernels.h"
#include "kernels/sgd_update.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

constexpr int64_t kPiece = 1 << 15;  // elements of one task

// Outputs may be an input itself, never shifted against it: `ivdep` tells the compiler that vectors are safe.

template <typename Body>
void pieces(int64_t elements, const Body& body) {
  parallel_for((elements + kPiece - 1) / kPiece, [&](int64_t task, float*) {
    const int64_t first = task * kPiece;
    body(first, std::min(elements, first + kPiece));
  });
}

PROFL_CLONES void relu_range(const float* x, float* y, int64_t first, int64_t last) {
#pragma GCC ivdep
  for (int64_t i = first; i < last; ++i) y[i] = x[i] < 0.0f ? 0.0f : x[i];
}

PROFL_CLONES void mask_range(const float* gradient, const float* y, float* out, int64_t first, int64_t last) {
#pragma GCC ivdep
  for (int64_t i = first; i < last; ++i) out[i] = y[i] > 0.0f ? gradient[i] : 0.0f;
}

PROFL_CLONES void add_range(const float* a, const float* b, bool relu, float* out, int64_t first, int64_t last) {
#pragma GCC ivdep
  for (int64_t i = first; i < last; ++i) {
    const float value = a[i] + b[i];
    out[i] = relu && value < 0.0f ? 0.0f : value;
  }
}

}  // namespace

void relu(Context&, Stack stack) {
  const Arguments a(stack);
  pieces(a.elements(0), [&](int64_t first, int64_t last) { relu_range(a.read(0), a.write(1), first, last); });
}

void relu_backward(Context&, Stack stack) {
  const Arguments a(stack);
  pieces(a.elements(0),
         [&](int64_t first, int64_t last) { mask_range(a.read(0), a.read(1), a.write(2), first, last); });
}

void add(Context&, Stack stack) {
  const Arguments a(stack);
  pieces(a.elements(0),
         [&](int64_t first, int64_t last) { add_range(a.read(0), a.read(1), a.flag(2), a.write(3), first, last); });
}

void sgd(Context&, Stack stack) {
  const Arguments a(stack);
  const SgdUpdate update(a.read(2));
  const SgdUpdate::Tensors tensors(a, 0, 3, 4);
  pieces(a.elements(0),
         [&](int64_t first, int64_t last) { update.apply(a.read(1) + first, tensors.from(first), last - first); });
}

void fill(Context&, Stack stack) {
  const Arguments a(stack);
  std::fill_n(a.write(1), a.elements(1), a.number(0));
}

void channel_sum(Context&, Stack stack) {
  const Arguments a(stack);
  const Channels c(a.tensor(0));
  const float* x = a.read(0);
  float* out = a.write(1);
  parallel_for(c.channels, [&](int64_t channel, float*) {
    double total = 0;
    for (int64_t n = 0; n < c.batch; ++n) {
      const float* row = x + (n * c.channels + channel) * c.inner;
      double part = 0;
      for (int64_t i = 0; i < c.inner; ++i) part += row[i];
      total += part;
    }
    out[channel] = static_cast<float>(total);
  });
}

}  // namespace profl
