// Reading a kernel's stack: arguments and outputs in the order of the operator's contract.
#pragma once

#include <cstdint>

#include "kernels/common/inline.h"
#include "values/values.h"

namespace profl {

class Arguments {
 public:
  explicit Arguments(Stack stack) : stack_(stack) {}

  size_t count() const { return stack_.size(); }
  const Tensor& tensor(size_t i) const { return stack_[i]->toTensor(); }
  bool absent(size_t i) const { return stack_[i]->isNone(); }
  const float* read(size_t i) const { return absent(i) ? nullptr : tensor(i).const_data_ptr<float>(); }
  float* write(size_t i) const { return absent(i) ? nullptr : tensor(i).mutable_data_ptr<float>(); }
  int64_t size(size_t i, ssize_t dim) const { return tensor(i).size(dim); }
  int64_t elements(size_t i) const { return tensor(i).numel(); }
  double exact_number(size_t i) const { return stack_[i]->toDouble(); }
  float number(size_t i) const { return static_cast<float>(stack_[i]->toDouble()); }
  bool flag(size_t i) const { return stack_[i]->toBool(); }
  int64_t integer(size_t i) const { return stack_[i]->toInt(); }
  int64_t pair(size_t i, size_t position) const { return stack_[i]->toIntList()[position]; }

 private:
  Stack stack_;
};

// A sequence [N, C, L] is an image of height 1.
inline int64_t height(const Tensor& t) { return t.dim() > 3 ? t.size(2) : 1; }
inline int64_t width(const Tensor& t) { return t.size(t.dim() - 1); }

// [N, C, rest...] of a tensor.
struct Channels {
  int64_t batch, channels, inner;
  explicit Channels(const Tensor& t) : batch(t.size(0)), channels(t.size(1)), inner(1) {
    for (ssize_t d = 2; d < t.dim(); ++d) inner *= t.size(d);
  }
};

}  // namespace profl
