// Activations that no other kernel takes over.
#include "kernels/activation.h"

#include "kernels/kernels.h"
#include "kernels/pieces.h"

namespace profl {
namespace {

PROFL_WIDE_CLONES void forward(Activation kind, const float* x, float parameter, float* y, int64_t first,
                               int64_t last) {
  with_activation(kind, [&](auto k) __attribute__((always_inline)) {
#pragma GCC ivdep
    for (int64_t i = first; i < last; ++i) y[i] = activate<decltype(k)::value>(x[i], parameter);
  });
}

PROFL_WIDE_CLONES void backward(Activation kind, const float* gradient, const float* x, float parameter, float* to_x,
                                int64_t first, int64_t last) {
  with_activation(kind, [&](auto k) __attribute__((always_inline)) {
#pragma GCC ivdep
    for (int64_t i = first; i < last; ++i) to_x[i] = through<decltype(k)::value>(gradient[i], x[i], parameter);
  });
}

}  // namespace

void activation(Context&, Stack stack) {
  const Arguments a(stack);
  const Activation kind = static_cast<Activation>(a.integer(1));
  pieces(a.elements(0),
         [&](int64_t first, int64_t last) { forward(kind, a.read(0), a.number(2), a.write(3), first, last); });
}

void activation_backward(Context&, Stack stack) {
  const Arguments a(stack);
  const Activation kind = static_cast<Activation>(a.integer(2));
  pieces(a.elements(0), [&](int64_t first, int64_t last) {
    backward(kind, a.read(0), a.read(1), a.number(3), a.write(4), first, last);
  });
}

}  // namespace profl
