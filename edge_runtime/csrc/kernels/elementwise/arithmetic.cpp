// Arithmetic of two tensors with broadcasting, of a tensor and numbers, and sums over dimensions.
#include "kernels/common/kernels.h"
#include "kernels/common/pieces.h"
#include "kernels/common/walk.h"

namespace profl {
namespace {

// Part of the programs' format (edge_runtime/export/operators/arithmetic.py).
enum class Operation : int64_t {
  add = 0,
  subtract = 1,
  multiply = 2,
  divide = 3,
  select = 4,   // a where b is not 0, else 0, whatever a is there
  greater = 5,  // 1 where a > b, else 0
  equal = 6,    // 1 where a == b, else 0
};

template <typename Compute>
inline __attribute__((always_inline)) void combine(const float* a, int64_t step_a, const float* b, int64_t step_b,
                                                   int64_t count, float* y, const Compute& compute) {
  // y may be a or b itself where their shapes are its own: every element is read before it is written.
  if (step_a == 1 && step_b == 1) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) y[i] = compute(a[i], b[i]);
  } else if (step_b == 1) {
    const float fixed = *a;
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) y[i] = compute(fixed, b[i]);
  } else if (step_a == 1) {
    const float fixed = *b;
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) y[i] = compute(a[i], fixed);
  } else {
    const float both = compute(*a, *b);
    for (int64_t i = 0; i < count; ++i) y[i] = both;
  }
}

PROFL_CLONES void combine_row(Operation kind, const float* a, int64_t step_a, const float* b, int64_t step_b,
                              int64_t count, float* y) {
  switch (kind) {
    case Operation::add:
      return combine(a, step_a, b, step_b, count, y, [](float p, float q) { return p + q; });
    case Operation::subtract:
      return combine(a, step_a, b, step_b, count, y, [](float p, float q) { return p - q; });
    case Operation::multiply:
      return combine(a, step_a, b, step_b, count, y, [](float p, float q) { return p * q; });
    case Operation::divide:
      return combine(a, step_a, b, step_b, count, y, [](float p, float q) { return p / q; });
    case Operation::select:
      return combine(a, step_a, b, step_b, count, y, [](float p, float q) { return q != 0.0f ? p : 0.0f; });
    case Operation::greater:
      return combine(a, step_a, b, step_b, count, y, [](float p, float q) { return p > q ? 1.0f : 0.0f; });
    case Operation::equal:
      return combine(a, step_a, b, step_b, count, y, [](float p, float q) { return p == q ? 1.0f : 0.0f; });
  }
}

PROFL_CLONES void affine_range(const float* x, float factor, float offset, float* y, int64_t first, int64_t last) {
#pragma GCC ivdep
  for (int64_t i = first; i < last; ++i) y[i] = x[i] * factor + offset;
}

constexpr int kPartial = 16;   // independent partial sums, so that the compiler may keep them in vectors
constexpr int kColumns = 256;  // columns that are summed side by side

// Sum of a row of products; b repeats one element where `step_b` is 0, and is 1 where it is null.
PROFL_CLONES double sum_row(const float* a, const float* b, int64_t step_b, int64_t count) {
  float partial[kPartial] = {};
  int64_t i = 0;
  const bool products = b != nullptr && step_b == 1;
  if (products) {
    for (; i + kPartial <= count; i += kPartial) {
      for (int k = 0; k < kPartial; ++k) partial[k] += a[i + k] * b[i + k];
    }
  } else {
    for (; i + kPartial <= count; i += kPartial) {
      for (int k = 0; k < kPartial; ++k) partial[k] += a[i + k];
    }
  }
  double total = 0;
  for (int k = 0; k < kPartial; ++k) total += partial[k];
  for (; i < count; ++i) total += static_cast<double>(a[i]) * (products ? b[i] : 1.0f);
  return b == nullptr || products ? total : total * *b;
}

PROFL_CLONES void add_row(const float* a, const float* b, int64_t step_b, int64_t count, double* to) {
  if (b == nullptr) {
    for (int64_t i = 0; i < count; ++i) to[i] += a[i];
  } else if (step_b == 1) {
    for (int64_t i = 0; i < count; ++i) to[i] += static_cast<double>(a[i]) * b[i];
  } else {
    const double fixed = *b;
    for (int64_t i = 0; i < count; ++i) to[i] += a[i] * fixed;
  }
}

// The dimensions that a sum keeps and the ones it runs over; operands are a, b and the result.
struct Reduction {
  Walk kept, summed;
  bool inner_kept = false;

  Reduction(const Tensor& a, const Tensor* b, const Tensor& out) {
    const ssize_t rank = a.dim();
    const Strides of_a(a, rank), of_b(b == nullptr ? a : *b, rank), of_out(out, rank);
    for (ssize_t d = 0; d < rank; ++d) {
      if (a.size(d) == 1) continue;
      const ssize_t own = d - (rank - out.dim());
      inner_kept = own >= 0 && out.size(own) == a.size(d);
      (inner_kept ? kept : summed).add(a.size(d), of_a.of[d], of_b.of[d], of_out.of[d]);
    }
  }
};

}  // namespace

void arithmetic(Context& context, Stack stack) {
  const Arguments a(stack);
  const Tensor& out = a.tensor(3);
  if (!walkable(context, out)) return;
  const Operation kind = static_cast<Operation>(a.integer(2));
  const Strides left(a.tensor(0), out.dim()), right(a.tensor(1), out.dim());
  Walk walk;
  for (ssize_t d = 0; d < out.dim(); ++d) walk.add(out.size(d), left.of[d], right.of[d]);
  const float *p = a.read(0), *q = a.read(1);
  float* y = a.write(3);
  if (walk.rows() == 1 && walk.inner_stride(0) == 1 && walk.inner_stride(1) == 1) {
    pieces(walk.inner(), [&](int64_t first, int64_t last) {
      combine_row(kind, p + first, 1, q + first, 1, last - first, y + first);
    });
    return;
  }
  row_pieces(walk.rows(), walk.inner(), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      combine_row(kind, p + walk.row(row, 0), walk.inner_stride(0), q + walk.row(row, 1), walk.inner_stride(1),
                  walk.inner(), y + row * walk.inner());
    }
  });
}

void affine(Context&, Stack stack) {
  const Arguments a(stack);
  pieces(a.elements(0), [&](int64_t first, int64_t last) {
    affine_range(a.read(0), a.number(1), a.number(2), a.write(3), first, last);
  });
}

void broadcast(Context& context, Stack stack) {
  const Arguments a(stack);
  const Tensor& out = a.tensor(2);
  if (!walkable(context, out)) return;
  const Strides source(a.tensor(0), out.dim());
  Walk walk;
  for (ssize_t d = 0; d < out.dim(); ++d) walk.add(out.size(d), source.of[d]);
  const float *x = a.read(0), factor = a.number(1);
  float* y = a.write(2);
  row_pieces(walk.rows(), walk.inner(), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      combine_row(Operation::multiply, x + walk.row(row, 0), walk.inner_stride(0), &factor, 0, walk.inner(),
                  y + row * walk.inner());
    }
  });
}

void sum_to(Context& context, Stack stack) {
  const Arguments a(stack);
  if (!walkable(context, a.tensor(0))) return;
  const float *x = a.read(0), *factors = a.read(1);
  const double factor = a.number(2);
  float* out = a.write(3);
  const Reduction r(a.tensor(0), a.absent(1) ? nullptr : &a.tensor(1), a.tensor(3));
  const auto second = [&](int64_t at) { return factors == nullptr ? nullptr : factors + at; };
  const int64_t runs = r.summed.rows();
  if (!r.inner_kept) {
    row_pieces(r.kept.elements(), r.summed.elements(), [&](int64_t first, int64_t last) {
      for (int64_t element = first; element < last; ++element) {
        const int64_t at = r.kept.element(element, 0), at_b = r.kept.element(element, 1);
        double total = 0;
        for (int64_t row = 0; row < runs; ++row) {
          total += sum_row(x + at + r.summed.row(row, 0), second(at_b + r.summed.row(row, 1)), r.summed.inner_stride(1),
                           r.summed.inner());
        }
        out[r.kept.element(element, 2)] = static_cast<float>(total * factor);
      }
    });
    return;
  }
  const int64_t columns = r.kept.inner(), blocks = (columns + kColumns - 1) / kColumns;
  const int64_t step_b = r.kept.inner_stride(1), terms = r.summed.elements();
  row_pieces(r.kept.rows() * blocks, terms * kColumns, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t row = task / blocks, column = task % blocks * kColumns;
      const int64_t count = std::min<int64_t>(kColumns, columns - column);
      const int64_t at = r.kept.row(row, 0) + column, at_b = r.kept.row(row, 1) + column * step_b;
      double total[kColumns] = {};
      for (int64_t term = 0; term < terms; ++term) {
        add_row(x + at + r.summed.element(term, 0), second(at_b + r.summed.element(term, 1)), step_b, count, total);
      }
      float* to = out + r.kept.row(row, 2) + column;
      for (int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(total[i] * factor);
    }
  });
}

}  // namespace profl
