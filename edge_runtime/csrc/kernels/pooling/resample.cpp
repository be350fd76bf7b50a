// Images at another size: every position of the output is one of the input's, or a mean of two in each direction.
#include <algorithm>
#include <cmath>

#include "kernels/common/kernels.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

// The numbers are part of the programs' format (edge_runtime/export/operators/resample.py).
enum class Resampling : int64_t { nearest = 0, nearest_exact = 1, linear = 2, linear_corners = 3 };

// Two positions of the input and the weight of the second.
struct Position {
  int32_t first, second;
  float weight;
};

// One direction. `step` is how far two neighbours of the output are apart in the input; as PyTorch does for float32,
// positions are computed in float32.
struct Direction {
  Resampling mode;
  int64_t in, out;
  float step;

  // The position of the input that begins at or before `from`; whatever the step is, even no number, it is one of them.
  int64_t inside(float from) const {
    const float last = static_cast<float>(in - 1);
    return from > 0.0f ? std::min(static_cast<int64_t>(std::min(from, last)), in - 1) : 0;
  }

  Position at(int64_t i) const {
    const float place = static_cast<float>(i);
    if (mode == Resampling::nearest || mode == Resampling::nearest_exact) {
      const float from = (mode == Resampling::nearest ? place : place + 0.5f) * step;
      const int32_t index = static_cast<int32_t>(inside(from));
      return {index, index, 0.0f};
    }
    const float from = mode == Resampling::linear_corners ? place * step : std::max(0.0f, (place + 0.5f) * step - 0.5f);
    const int64_t first = inside(from);
    const float weight = std::min(std::max(from - static_cast<float>(first), 0.0f), 1.0f);
    return {static_cast<int32_t>(first), static_cast<int32_t>(std::min(first + 1, in - 1)), weight};
  }
};

struct Resampled {
  int64_t planes;
  Direction vertical, horizontal;

  // Mode and steps stand in the stack from `at` on. A sequence [N, C, L] is an image of height 1.
  Resampled(const Arguments& a, const Tensor& in, const Tensor& out, size_t at)
      : planes(in.size(0) * in.size(1)),
        vertical{static_cast<Resampling>(a.integer(at)), height(in), height(out), a.number(at + 1)},
        horizontal{static_cast<Resampling>(a.integer(at)), width(in), width(out), a.number(at + 2)} {}

  // Fails the context for an output whose positions the workspace does not hold; the exporter never writes one.
  bool supported(Context& context) const {
    if (horizontal.out <= static_cast<int64_t>(kWorkspaceBytesPerThread / sizeof(Position))) return true;
    context.fail(Error::NotSupported);
    return false;
  }

  // body(plane, positions of the columns) for every plane; the workspace holds the positions.
  template <typename Body>
  void for_each_plane(const Body& body) const {
    parallel_for(planes, [&](int64_t plane, float* workspace) {
      Position* columns = reinterpret_cast<Position*>(workspace);
      for (int64_t j = 0; j < horizontal.out; ++j) columns[j] = horizontal.at(j);
      body(plane, columns);
    });
  }
};

}  // namespace

void resample2d(Context& context, Stack stack) {
  const Arguments a(stack);
  const Resampled r(a, a.tensor(0), a.tensor(4), 1);
  if (!r.supported(context)) return;
  const int64_t in_w = r.horizontal.in, out_w = r.horizontal.out;
  r.for_each_plane([&](int64_t plane, const Position* columns) {
    const float* x = a.read(0) + plane * r.vertical.in * in_w;
    float* y = a.write(4) + plane * r.vertical.out * out_w;
    for (int64_t i = 0; i < r.vertical.out; ++i, y += out_w) {
      const Position row = r.vertical.at(i);
      const float *above = x + row.first * in_w, *below = x + row.second * in_w;
      for (int64_t j = 0; j < out_w; ++j) {
        const Position c = columns[j];
        // A weight of 0 leaves its term out: an infinite neighbour is none of a nearest value's business.
        float upper = above[c.first], lower = below[c.first];
        if (c.weight != 0.0f) {
          upper = (1.0f - c.weight) * upper + c.weight * above[c.second];
          lower = (1.0f - c.weight) * lower + c.weight * below[c.second];
        }
        y[j] = row.weight == 0.0f ? upper : (1.0f - row.weight) * upper + row.weight * lower;
      }
    }
  });
}

void resample2d_backward(Context& context, Stack stack) {
  const Arguments a(stack);
  const Resampled r(a, a.tensor(4), a.tensor(0), 1);
  if (!r.supported(context)) return;
  const int64_t in_w = r.horizontal.in, out_w = r.horizontal.out;
  r.for_each_plane([&](int64_t plane, const Position* columns) {
    const float* gradient = a.read(0) + plane * r.vertical.out * out_w;
    float* to_x = a.write(4) + plane * r.vertical.in * in_w;
    std::fill_n(to_x, r.vertical.in * in_w, 0.0f);
    for (int64_t i = 0; i < r.vertical.out; ++i, gradient += out_w) {
      const Position row = r.vertical.at(i);
      float *above = to_x + row.first * in_w, *below = to_x + row.second * in_w;
      for (int64_t j = 0; j < out_w; ++j) {
        const Position c = columns[j];
        const float upper = (1.0f - row.weight) * gradient[j], lower = row.weight * gradient[j];
        above[c.first] += (1.0f - c.weight) * upper;
        above[c.second] += c.weight * upper;
        below[c.first] += (1.0f - c.weight) * lower;
        below[c.second] += c.weight * lower;
      }
    }
  });
}

}  // namespace profl
