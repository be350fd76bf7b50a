// The update of torch.optim.SGD, shared by the operator `sgd` and by the kernels that never store a whole gradient.
#pragma once

#include <cstdint>

#include "kernels/common/stack.h"

namespace profl {

struct SgdUpdate {
  float rate = 0, momentum = 0, weight_decay = 0, proximal = 0;
  bool nesterov = false;

  SgdUpdate() = default;
  // [learning rate, momentum, weight decay, 1 for Nesterov's momentum, with a proximal term its factor]
  explicit SgdUpdate(const Tensor& hyperparameters) {
    const float* values = hyperparameters.const_data_ptr<float>();
    rate = values[0];
    momentum = values[1];
    weight_decay = values[2];
    nesterov = values[3] != 0.0f;
    proximal = hyperparameters.numel() > 4 ? values[4] : 0.0f;
  }

  // Where one tensor's update reads and writes; the new values may be the old ones' places. Without momentum both
  // buffers are null. A buffer holds float, or the upper halves of floats (bfloat16) where `half` says so.
  struct Tensors {
    const float* parameter = nullptr;
    const uint8_t* buffer = nullptr;
    const float* start = nullptr;  // of a proximal term: the parameter when the training began
    float* new_parameter = nullptr;
    uint8_t* new_buffer = nullptr;
    bool half = false;

    Tensors() = default;
    // Reads the parameter from the stack at its place, the buffer (or none) and with a proximal term the start at the
    // next, and their outputs, which are last.
    Tensors(const Arguments& a, size_t parameter_at, size_t buffer_at) : parameter(a.read(parameter_at)) {
      const size_t outputs_at = a.count() - 2;
      new_parameter = a.write(outputs_at);
      if (outputs_at > buffer_at + 1) start = a.read(buffer_at + 1);
      if (a.absent(buffer_at)) return;
      half = a.tensor(buffer_at).scalar_type() == ScalarType::BFloat16;
      buffer = static_cast<const uint8_t*>(a.tensor(buffer_at).const_data_ptr());
      new_buffer = static_cast<uint8_t*>(a.tensor(outputs_at + 1).mutable_data_ptr());
    }

    Tensors from(int64_t element) const {
      Tensors part = *this;
      part.parameter += element;
      part.new_parameter += element;
      if (start != nullptr) part.start += element;
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
