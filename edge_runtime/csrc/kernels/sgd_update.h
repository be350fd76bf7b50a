// The update of torch.optim.SGD, shared by the operator `sgd` and by the kernels that never store a whole gradient.
#pragma once

#include <cstdint>

#include "kernels/stack.h"

namespace profl {

struct SgdUpdate {
  float rate = 0, momentum = 0, weight_decay = 0;

  SgdUpdate() = default;
  // [learning rate, momentum, weight decay]
  explicit SgdUpdate(const float* hyperparameters)
      : rate(hyperparameters[0]), momentum(hyperparameters[1]), weight_decay(hyperparameters[2]) {}

  // Where one tensor's update reads and writes; the new values may be the old ones' places. Without momentum both
  // buffers are null. A buffer holds float, or the upper halves of floats (bfloat16) where `half` says so.
  struct Tensors {
    const float* parameter = nullptr;
    const uint8_t* buffer = nullptr;
    float* new_parameter = nullptr;
    uint8_t* new_buffer = nullptr;
    bool half = false;

    Tensors() = default;
    // Reads parameter and buffer (or none) from the stack at the first two places, their outputs at the last two.
    Tensors(const Arguments& a, size_t parameter_at, size_t buffer_at, size_t outputs_at)
        : parameter(a.read(parameter_at)), new_parameter(a.write(outputs_at)) {
      if (a.absent(buffer_at)) return;
      half = a.tensor(buffer_at).scalar_type() == executorch::aten::ScalarType::BFloat16;
      buffer = static_cast<const uint8_t*>(a.tensor(buffer_at).const_data_ptr());
      new_buffer = static_cast<uint8_t*>(a.tensor(outputs_at + 1).mutable_data_ptr());
    }

    Tensors from(int64_t element) const {
      Tensors part = *this;
      part.parameter += element;
      part.new_parameter += element;
      if (buffer != nullptr) {
        part.buffer += element * (half ? 2 : 4);
        part.new_buffer += element * (half ? 2 : 4);
      }
      return part;
    }
  };

  // Updates `count` elements, the first of which is the first of `tensors`. Not inline: every caller runs the same
  // instructions, so that a fused update has the bits of a separate one.
  void apply(const float* gradient, const Tensors& tensors, int64_t count) const;
};

}  // namespace profl
