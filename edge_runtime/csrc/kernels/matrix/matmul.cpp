// Products of matrices, one for every entry of the leading dimensions.
#include <algorithm>

#include "kernels/common/kernels.h"
#include "kernels/matrix/gemm.h"
#include "threads/thread_pool.h"

namespace profl {

// c = a b, either turned where its flag says so.
void matmul(Context&, Stack stack) {
  const Arguments a(stack);
  const Tensor &left = a.tensor(0), &out = a.tensor(4);
  const bool turn_a = a.flag(2), turn_b = a.flag(3);
  const int64_t m = out.size(out.dim() - 2), n = out.size(out.dim() - 1);
  const int64_t k = left.size(left.dim() - (turn_a ? 2 : 1));
  const int64_t together = 64, tiles = (m + together - 1) / together;
  parallel_for(out.numel() / (m * n) * tiles, [&](int64_t task, float* workspace) {
    const int64_t batch = task / tiles, row = task % tiles * together;
    Gemm g = matrix_product(std::min(together, m - row), n, k, a.read(0) + batch * m * k + (turn_a ? row : row * k),
                            turn_a ? m : k, a.read(1) + batch * k * n, turn_b ? k : n,
                            a.write(4) + (batch * m + row) * n, n);
    g.transpose_a = turn_a;
    g.transpose_b = turn_b;
    gemm(g, workspace);
  });
}

}  // namespace profl
