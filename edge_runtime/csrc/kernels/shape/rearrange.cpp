// Operators that move elements and change none: permutation, concatenation, cropping and padding.
#include <algorithm>

#include "kernels/common/kernels.h"
#include "kernels/common/pieces.h"
#include "kernels/common/walk.h"

namespace profl {

void permute(Context& context, Stack stack) {
  const Arguments a(stack);
  const Tensor &in = a.tensor(0), &out = a.tensor(2);
  if (!walkable(context, in)) return;
  int64_t strides[kMaxRank], run = 1;
  for (ssize_t d = in.dim() - 1; d >= 0; --d) {
    strides[d] = run;
    run *= in.size(d);
  }
  Walk walk;
  for (ssize_t d = 0; d < out.dim(); ++d) walk.add(out.size(d), strides[a.pair(1, d)]);
  const float* x = a.read(0);
  float* y = a.write(2);
  const int64_t step = walk.inner_stride(0), count = walk.inner();
  row_pieces(walk.rows(), count, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const float* from = x + walk.row(row, 0);
      float* to = y + row * count;
      for (int64_t i = 0; i < count; ++i) to[i] = from[i * step];
    }
  });
}

// The stack is the dimension, then as many tensors as there are, then the result.
void cat(Context&, Stack stack) {
  const Arguments a(stack);
  const size_t result = stack.size() - 1;
  const ssize_t dim = a.integer(0);
  const Tensor& out = a.tensor(result);
  int64_t outer = 1, inner = 1;
  for (ssize_t d = 0; d < dim; ++d) outer *= out.size(d);
  for (ssize_t d = dim + 1; d < out.dim(); ++d) inner *= out.size(d);
  const int64_t all = out.size(dim) * inner;
  float* y = a.write(result);
  row_pieces(outer, all, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      float* to = y + row * all;
      for (size_t part = 1; part < result; ++part) {
        const int64_t count = a.size(part, dim) * inner;
        std::copy_n(a.read(part) + row * count, count, to);
        to += count;
      }
    }
  });
}

// out[i] = x[i + offset] where that lies inside of x, else the value.
void crop(Context& context, Stack stack) {
  const Arguments a(stack);
  const Tensor &in = a.tensor(0), &out = a.tensor(3);
  if (!walkable(context, in)) return;
  const ssize_t last_dim = in.dim() - 1;
  int64_t offsets[kMaxRank];
  for (ssize_t d = 0; d <= last_dim; ++d) offsets[d] = a.pair(1, d);
  const int64_t columns = out.size(last_dim), shift = offsets[last_dim], width = in.size(last_dim);
  const int64_t low = std::clamp<int64_t>(-shift, 0, columns), high = std::clamp<int64_t>(width - shift, low, columns);
  const float *x = a.read(0), value = a.number(2);
  float* y = a.write(3);
  row_pieces(out.numel() / std::max<int64_t>(1, columns), columns, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      int64_t from = 0, run = width, index = row;
      bool inside = true;
      for (ssize_t d = last_dim - 1; d >= 0; --d) {
        const int64_t at = index % out.size(d) + offsets[d];
        index /= out.size(d);
        inside = inside && at >= 0 && at < in.size(d);
        if (!inside) break;
        from += at * run;
        run *= in.size(d);
      }
      float* to = y + row * columns;
      if (!inside) {
        std::fill_n(to, columns, value);
        continue;
      }
      std::fill_n(to, low, value);
      std::copy_n(x + from + low + shift, high - low, to + low);
      std::fill_n(to + high, columns - high, value);
    }
  });
}

}  // namespace profl
