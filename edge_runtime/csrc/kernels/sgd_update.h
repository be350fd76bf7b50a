// The update of torch.optim.SGD, shared by the operator `sgd` and by the kernels that never store a whole gradient.
#pragma once

#include <cstdint>

#include "kernels/stack.h"

namespace profl {

struct SgdUpdate {
  float rate, momentum, weight_decay;

  // Where one tensor's update reads and writes; the new values may be the old ones' places. Without momentum both
  // buffers are null.
  struct Tensors {
    const float *parameter, *momentum_buffer;
    float *new_parameter, *new_momentum_buffer;

    Tensors from(int64_t element) const {
      return {parameter + element, momentum_buffer == nullptr ? nullptr : momentum_buffer + element,
              new_parameter + element, new_momentum_buffer == nullptr ? nullptr : new_momentum_buffer + element};
    }
  };

  // Updates `count` elements, the first of which is the first of `tensors`. Not inline: every caller runs the same
  // instructions, so that a fused update has the bits of a separate one.
  void apply(const float* gradient, const Tensors& tensors, int64_t count) const;
};

}  // namespace profl
