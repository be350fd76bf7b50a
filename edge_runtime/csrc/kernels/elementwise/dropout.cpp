// Dropout: the same kernel drops activations and their gradients.
#include "kernels/common/kernels.h"
#include "kernels/common/pieces.h"
#include "kernels/elementwise/dropout_mask.h"

namespace profl {
namespace {

// y may be x itself.
PROFL_CLONES void drop_range(const DropoutMask& mask, const float* x, float* y, int64_t first, int64_t last) {
  const DropoutMask local = mask;
#pragma GCC ivdep
  for (int64_t i = first; i < last; ++i) y[i] = x[i] * local.factor(static_cast<uint32_t>(i));
}

}  // namespace

void dropout(Context&, Stack stack) {
  const Arguments a(stack);
  const DropoutMask mask(a.tensor(1).const_data_ptr<int64_t>(), a.integer(2), a.number(3));
  pieces(a.elements(0), [&](int64_t first, int64_t last) { drop_range(mask, a.read(0), a.write(4), first, last); });
}

}  // namespace profl
