// Index spaces that several tensors are read by: broadcasting, sums over dimensions, permutation.
#pragma once

#include <cstdint>

#include "kernels/common/stack.h"

namespace profl {

constexpr int kMaxRank = 8;
constexpr int kMaxOperands = 3;

// Extents from the outermost to the innermost, with a stride of each operand in floats. Dimensions that every operand
// sees as one run are joined, and dimensions of one element are left out.
class Walk {
 public:
  void add(int64_t extent, int64_t first, int64_t second = 0, int64_t third = 0) {
    if (extent == 1) return;
    const int64_t strides[kMaxOperands] = {first, second, third};
    if (rank > 0) {
      bool joins = true;
      for (int o = 0; o < kMaxOperands; ++o) joins = joins && stride[o][rank - 1] == strides[o] * extent;
      if (joins) --rank;
      extent *= joins ? extents[rank] : 1;
    }
    extents[rank] = extent;
    for (int o = 0; o < kMaxOperands; ++o) stride[o][rank] = strides[o];
    ++rank;
  }

  // The innermost dimension, which loops run over; one element where there is none.
  int64_t inner() const { return rank == 0 ? 1 : extents[rank - 1]; }
  int64_t inner_stride(int operand) const { return rank == 0 ? 0 : stride[operand][rank - 1]; }
  // How many runs of the innermost dimension there are.
  int64_t rows() const {
    int64_t count = 1;
    for (int d = 0; d + 1 < rank; ++d) count *= extents[d];
    return count;
  }
  int64_t elements() const { return rows() * inner(); }

  // Where row `row` begins in an operand.
  int64_t row(int64_t index, int operand) const { return offset(index, operand, rank - 1); }
  // Where element `index`, in row-major order, lies in an operand.
  int64_t element(int64_t index, int operand) const { return offset(index, operand, rank); }

 private:
  int64_t offset(int64_t index, int operand, int dimensions) const {
    int64_t at = 0;
    for (int d = dimensions - 1; d >= 0; --d) {
      at += index % extents[d] * stride[operand][d];
      index /= extents[d];
    }
    return at;
  }

  int rank = 0;
  int64_t extents[kMaxRank];
  int64_t stride[kMaxOperands][kMaxRank];
};

// Strides of `tensor` as seen by the dimensions of a tensor of `rank` that it is broadcast to; 0 where it repeats.
struct Strides {
  int64_t of[kMaxRank];
  Strides(const Tensor& tensor, ssize_t rank) {
    int64_t run = 1;
    for (ssize_t d = rank - 1, own = tensor.dim() - 1; d >= 0; --d, --own) {
      const int64_t extent = own < 0 ? 1 : tensor.size(own);
      of[d] = extent == 1 ? 0 : run;
      run *= extent;
    }
  }
};

// Fails the context for a tensor of more dimensions than are walked; the exporter never writes such a program.
inline bool walkable(Context& context, const Tensor& tensor) {
  if (tensor.dim() <= kMaxRank) return true;
  context.fail(Error::NotSupported);
  return false;
}

}  // namespace profl
