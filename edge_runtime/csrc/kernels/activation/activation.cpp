// Activations that no other kernel takes over, and their loops for those that do.
#include "kernels/activation/activation_runs.h"
#include "kernels/common/kernels.h"
#include "kernels/common/pieces.h"

namespace profl {

PROFL_WIDE_CLONES void activate_run(Activation kind, const float* x, float parameter, float* y, int64_t count) {
  with_activation(kind, [&](auto k) __attribute__((always_inline)) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) y[i] = activate<decltype(k)::value>(x[i], parameter);
  });
}

PROFL_WIDE_CLONES void activation_gradient_run(Activation kind, const float* gradient, const float* x, float parameter,
                                               float* to_x, int64_t count) {
  with_activation(kind, [&](auto k) __attribute__((always_inline)) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) to_x[i] = through<decltype(k)::value>(gradient[i], x[i], parameter);
  });
}

void activation(Context&, Stack stack) {
  const Arguments a(stack);
  const Activation kind = static_cast<Activation>(a.integer(1));
  pieces(a.elements(0), [&](int64_t first, int64_t last) {
    activate_run(kind, a.read(0) + first, a.number(2), a.write(3) + first, last - first);
  });
}

void activation_backward(Context&, Stack stack) {
  const Arguments a(stack);
  const Activation kind = static_cast<Activation>(a.integer(2));
  pieces(a.elements(0), [&](int64_t first, int64_t last) {
    activation_gradient_run(kind, a.read(0) + first, a.read(1) + first, a.number(3), a.write(4) + first, last - first);
  });
}

}  // namespace profl
