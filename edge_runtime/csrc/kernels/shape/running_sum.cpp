// Sums of all elements up to each one along a dimension, from its beginning or its end.
#include <algorithm>

#include "kernels/common/kernels.h"
#include "kernels/common/pieces.h"

namespace profl {
namespace {

constexpr int64_t kColumns = 256;  // that are summed side by side

// y may be x itself.
PROFL_CLONES void add_up(const float* x, int64_t count, double* sums, float* y) {
  for (int64_t i = 0; i < count; ++i) {
    sums[i] += x[i];
    y[i] = static_cast<float>(sums[i]);
  }
}

}  // namespace

void running_sum(Context&, Stack stack) {
  const Arguments a(stack);
  const int64_t outer = a.size(0, 0), length = a.size(0, 1), inner = a.size(0, 2);
  const int64_t blocks = (inner + kColumns - 1) / kColumns;
  const bool backwards = a.flag(1);
  row_pieces(outer * blocks, length * std::min(inner, kColumns), [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t column = task % blocks * kColumns, count = std::min(kColumns, inner - column);
      const int64_t begin = task / blocks * length * inner + column;
      double sums[kColumns] = {};
      for (int64_t i = 0; i < length; ++i) {
        const int64_t at = begin + (backwards ? length - 1 - i : i) * inner;
        add_up(a.read(0) + at, count, sums, a.write(2) + at);
      }
    }
  });
}

}  // namespace profl
