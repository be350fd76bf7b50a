// Where a weight's gradient goes, part by part: into a tensor of its own, or straight into the update of the weight, so
// that it never exists as a whole.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/common/stack.h"
#include "kernels/optimizer/sgd_update.h"

namespace profl {

class GradientSink {
 public:
  explicit GradientSink(float* gradient) : gradient_(gradient) {}

  // Reads weight, hyperparameters, momentum buffer (or none) and with a proximal term the start from the stack,
  // beginning at `at`, and behind them the outputs: weight and momentum buffer (or none).
  GradientSink(const Arguments& a, size_t at) : update_(a.tensor(at + 1)), tensors_(a, at, at + 2) {}

  // The sink of the elements from `element` on.
  GradientSink from(int64_t element) const {
    GradientSink part = *this;
    if (gradient_ != nullptr) {
      part.gradient_ += element;
    } else {
      part.tensors_ = tensors_.from(element);
    }
    return part;
  }

  // Takes `count` elements of the gradient, the first of which is the weight's `element`. Each element is put once.
  void put(const float* values, int64_t element, int64_t count) const {
    if (gradient_ != nullptr) {
      std::copy_n(values, count, gradient_ + element);
    } else {
      update_.apply(values, tensors_.from(element), count);
    }
  }

 private:
  float* gradient_ = nullptr;
  SgdUpdate update_{};
  SgdUpdate::Tensors tensors_{};
};

}  // namespace profl
