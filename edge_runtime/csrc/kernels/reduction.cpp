// Means over some neighbouring dimensions, and a tensor added to every row of a larger one.
#include <algorithm>

#include "kernels/kernels.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

constexpr int64_t kPiece = 1 << 10;  // columns of one task

// [outer, reduced, inner] of a tensor whose dimensions first..last are reduced.
struct Reduced {
  int64_t outer = 1, count = 1, inner = 1;
  Reduced(const Tensor& t, int64_t first, int64_t last) {
    for (ssize_t d = 0; d < t.dim(); ++d) (d < first ? outer : d <= last ? count : inner) *= t.size(d);
  }
};

PROFL_CLONES void add_row(const float* row, int64_t count, double* sums) {
  for (int64_t i = 0; i < count; ++i) sums[i] += row[i];
}

PROFL_CLONES void scale_row(const float* row, int64_t count, float factor, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = row[i] * factor;
}

// out may be a.
PROFL_CLONES void sum_row(const float* a, const float* b, int64_t count, float* out) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) out[i] = a[i] + b[i];
}

}  // namespace

void mean(Context&, Stack stack) {
  const Arguments a(stack);
  const Reduced r(a.tensor(0), a.integer(1), a.integer(2));
  const int64_t pieces = (r.inner + kPiece - 1) / kPiece;
  parallel_for(r.outer * pieces, [&](int64_t task, float* workspace) {
    const int64_t first = task % pieces * kPiece, columns = std::min(kPiece, r.inner - first);
    const float* x = a.read(0) + task / pieces * r.count * r.inner + first;
    double* sums = reinterpret_cast<double*>(workspace);
    std::fill_n(sums, columns, 0.0);
    for (int64_t i = 0; i < r.count; ++i) add_row(x + i * r.inner, columns, sums);
    float* out = a.write(3) + task / pieces * r.inner + first;
    for (int64_t i = 0; i < columns; ++i) out[i] = static_cast<float>(sums[i] / static_cast<double>(r.count));
  });
}

void mean_backward(Context&, Stack stack) {
  const Arguments a(stack);
  const Reduced r(a.tensor(3), a.integer(1), a.integer(2));
  const float factor = 1.0f / static_cast<float>(r.count);
  parallel_for(r.outer, [&](int64_t outer, float*) {
    float* to = a.write(3) + outer * r.count * r.inner;
    for (int64_t i = 0; i < r.count; ++i) scale_row(a.read(0) + outer * r.inner, r.inner, factor, to + i * r.inner);
  });
}

void add_rows(Context&, Stack stack) {
  const Arguments a(stack);
  const int64_t width = a.elements(1), rows = width == 0 ? 0 : a.elements(0) / width;
  constexpr int64_t kElements = 1 << 15;
  const int64_t together = std::max<int64_t>(1, kElements / std::max<int64_t>(1, width));
  parallel_for((rows + together - 1) / together, [&](int64_t task, float*) {
    const int64_t stop = std::min(rows, (task + 1) * together);
    for (int64_t row = task * together; row < stop; ++row) {
      sum_row(a.read(0) + row * width, a.read(1), width, a.write(2) + row * width);
    }
  });
}

}  // namespace profl
