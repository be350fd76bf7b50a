// Frozen weights that a file keeps in half the bytes: a bfloat16 is the upper half of a float.
#include "kernels/common/kernels.h"
#include "kernels/common/pieces.h"

namespace profl {
namespace {

PROFL_CLONES void widen_piece(const uint16_t* x, uint32_t* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = static_cast<uint32_t>(x[i]) << 16;
}

}  // namespace

void widen(Context&, Stack stack) {
  const Arguments a(stack);
  const auto* x = static_cast<const uint16_t*>(a.tensor(0).const_data_ptr());
  auto* y = static_cast<uint32_t*>(a.tensor(1).mutable_data_ptr());
  pieces(a.elements(1), [&](int64_t first, int64_t last) { widen_piece(x + first, y + first, last - first); });
}

}  // namespace profl
