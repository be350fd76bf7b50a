// Views made real: a dense copy of the elements that sizes, strides and an offset name (permute, slice, select,
// expand), and its gradient, to which that of other views may be added: in place where it lies there already.
#include <algorithm>

#include "kernels/common/kernels.h"
#include "kernels/common/walk.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

constexpr int64_t kElements = 1 << 15;  // of one task, at least one run along the innermost dimension

// The view of a tensor as nested loops: sizes, strides within the viewed tensor and within the dense copy.
struct Loops {
  int dims = 0;
  int64_t sizes[kMaxRank], viewed[kMaxRank], dense[kMaxRank];

  void add(int64_t size, int64_t viewed_stride, int64_t dense_stride) {
    if (size == 1) return;
    // Runs into the loop outside of it where both tensors go on evenly.
    if (dims > 0 && viewed[dims - 1] == viewed_stride * size && dense[dims - 1] == dense_stride * size) {
      sizes[dims - 1] *= size;
      viewed[dims - 1] = viewed_stride;
      dense[dims - 1] = dense_stride;
      return;
    }
    sizes[dims] = size;
    viewed[dims] = viewed_stride;
    dense[dims++] = dense_stride;
  }

  int64_t count() const {
    int64_t product = 1;
    for (int d = 0; d < dims; ++d) product *= sizes[d];
    return product;
  }

  // Where iteration `index` over all loops stands in both tensors.
  void locate(int64_t index, int64_t* in_viewed, int64_t* in_dense) const {
    *in_viewed = *in_dense = 0;
    for (int d = dims - 1; d >= 0; --d) {
      const int64_t at = index % sizes[d];
      index /= sizes[d];
      *in_viewed += at * viewed[d];
      *in_dense += at * dense[d];
    }
  }
};

// The dimensions of dense tensor `copy` that read distinct elements (or all of them: `repeated` false), and those that
// repeat elements.
Loops loops_of(const Tensor& copy, const Arguments& a, size_t strides, bool repeated) {
  Loops loops;
  int64_t dense = copy.numel();
  for (ssize_t d = 0; d < copy.dim(); ++d) {
    dense /= std::max<int64_t>(1, copy.size(d));
    const int64_t stride = a.pair(strides, static_cast<size_t>(d));
    if ((stride == 0) == repeated) loops.add(copy.size(d), stride, dense);
  }
  return loops;
}

// The innermost loop apart from the others.
struct Run {
  int64_t size = 1, viewed = 1, dense = 1;
  explicit Run(Loops& loops) {
    if (loops.dims == 0) return;
    const int last = --loops.dims;
    size = loops.sizes[last];
    viewed = loops.viewed[last];
    dense = loops.dense[last];
  }
};

void copy_run(const float* from, int64_t from_stride, float* to, int64_t to_stride, int64_t count) {
  if (from_stride == 1 && to_stride == 1) {
    std::copy_n(from, count, to);
    return;
  }
  for (int64_t i = 0; i < count; ++i) to[i * to_stride] = from[i * from_stride];
}

PROFL_CLONES void add_to_run(const float* from, int64_t from_stride, float* to, int64_t to_stride, int64_t count) {
  if (from_stride == 1 && to_stride == 1) {
    for (int64_t i = 0; i < count; ++i) to[i] += from[i];
  } else {
    for (int64_t i = 0; i < count; ++i) to[i * to_stride] += from[i * from_stride];
  }
}

template <typename Body>
void for_each(int64_t count, int64_t elements, const Body& body) {
  const int64_t together = std::max<int64_t>(1, kElements / std::max<int64_t>(1, elements));
  parallel_for((count + together - 1) / together, [&](int64_t task, float* workspace) {
    const int64_t stop = std::min(count, (task + 1) * together);
    for (int64_t i = task * together; i < stop; ++i) body(i, workspace);
  });
}

// sums[i] += row[i * stride]
PROFL_CLONES void add_run(const float* row, int64_t stride, int64_t count, double* sums) {
  if (stride == 1) {
    for (int64_t i = 0; i < count; ++i) sums[i] += row[i];
  } else {
    for (int64_t i = 0; i < count; ++i) sums[i] += row[i * stride];
  }
}

}  // namespace

void strided_copy(Context& context, Stack stack) {
  const Arguments a(stack);
  const Tensor& copy = a.tensor(3);
  if (!walkable(context, copy)) return;
  const float* from = a.read(0) + a.integer(2);
  Loops loops;
  int64_t dense = copy.numel();
  for (ssize_t d = 0; d < copy.dim(); ++d) {
    dense /= std::max<int64_t>(1, copy.size(d));
    loops.add(copy.size(d), a.pair(1, static_cast<size_t>(d)), dense);
  }
  const Run run(loops);
  for_each(loops.count(), run.size, [&](int64_t i, float*) {
    int64_t in_viewed, in_dense;
    loops.locate(i, &in_viewed, &in_dense);
    copy_run(from + in_viewed, run.viewed, a.write(3) + in_dense, run.dense, run.size);
  });
}

void strided_copy_backward(Context& context, Stack stack) {
  const Arguments a(stack);
  const Tensor& gradient = a.tensor(0);
  if (!walkable(context, gradient)) return;
  const float* from = gradient.const_data_ptr<float>();
  const float* added = a.read(3);
  float* whole = a.write(4);
  float* to = whole + a.integer(2);
  Loops distinct = loops_of(gradient, a, 1, false);
  const Loops repeated = loops_of(gradient, a, 1, true);
  const int64_t repetitions = repeated.count();
  const bool adds = added != nullptr;
  if (adds && added != whole) std::copy_n(added, a.elements(4), whole);
  if (!adds && distinct.count() != a.elements(4)) std::fill_n(whole, a.elements(4), 0.0f);
  const Run run(distinct);
  if (repetitions == 1) {
    for_each(distinct.count(), run.size, [&](int64_t i, float*) {
      int64_t in_viewed, in_dense;
      distinct.locate(i, &in_viewed, &in_dense);
      if (adds) {
        add_to_run(from + in_dense, run.dense, to + in_viewed, run.viewed, run.size);
      } else {
        copy_run(from + in_dense, run.dense, to + in_viewed, run.viewed, run.size);
      }
    });
    return;
  }
  // Elements that were repeated take a sum, in pieces of a run whose sums the workspace holds.
  constexpr int64_t kPiece = 1 << 10;
  const int64_t pieces = (run.size + kPiece - 1) / kPiece;
  parallel_for(distinct.count() * pieces, [&](int64_t task, float* workspace) {
    int64_t in_viewed, in_dense;
    distinct.locate(task / pieces, &in_viewed, &in_dense);
    const int64_t first = task % pieces * kPiece, count = std::min(kPiece, run.size - first);
    double* sums = reinterpret_cast<double*>(workspace);
    std::fill_n(sums, count, 0.0);
    for (int64_t r = 0; r < repetitions; ++r) {
      int64_t same, repeated_at;
      repeated.locate(r, &same, &repeated_at);
      add_run(from + in_dense + repeated_at + first * run.dense, run.dense, count, sums);
    }
    for (int64_t i = 0; i < count; ++i) {
      float& at = to[in_viewed + (first + i) * run.viewed];
      at = static_cast<float>(adds ? at + sums[i] : sums[i]);
    }
  });
}

}  // namespace profl
