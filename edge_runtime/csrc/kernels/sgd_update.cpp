#include "kernels/sgd_update.h"

namespace profl {
namespace {

// The gradient takes the weight decay, the buffer takes the gradient, the parameter the buffer. Old and new may be the
// same place, never shifted against each other: `ivdep` tells the compiler that vectors are safe.
PROFL_CLONES void update(const float* gradient, const float* parameter, const float* buffer, float rate, float momentum,
                         float decay, float* new_parameter, float* new_buffer, int64_t count) {
  if (buffer == nullptr) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      new_parameter[i] = parameter[i] - rate * (gradient[i] + decay * parameter[i]);
    }
    return;
  }
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    const float velocity = momentum * buffer[i] + (gradient[i] + decay * parameter[i]);
    new_parameter[i] = parameter[i] - rate * velocity;
    new_buffer[i] = velocity;
  }
}

}  // namespace

void SgdUpdate::apply(const float* gradient, const Tensors& tensors, int64_t count) const {
  update(gradient, tensors.parameter, tensors.momentum_buffer, rate, momentum, weight_decay, tensors.new_parameter,
         tensors.new_momentum_buffer, count);
}

}  // namespace profl
