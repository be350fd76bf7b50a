// Max and average pooling over windows, adaptive ones included, and global average pooling.
#include <algorithm>
#include <limits>

#include "kernels/common/kernels.h"
#include "kernels/common/pieces.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

// The windows of one direction. `kernel` 0 is adaptive pooling: window i of n covers [i * size / n, (i + 1) * size /
// n), rounded outwards.
struct Direction {
  int64_t size, outputs, kernel, stride, pad, dilation;

  struct Range {
    int64_t first, last;  // inside of the input, in steps of the dilation
    int64_t padded;       // extent with the padding, as average pooling may count it
  };

  // Outputs [first, last) read with one tap of the kernel the pixels `i * stride + shift`.
  struct Reach {
    int64_t shift, first, last;
  };

  Reach reach(int64_t tap) const {
    const int64_t shift = tap * dilation - pad;
    return {shift, shift < 0 ? (-shift + stride - 1) / stride : 0,
            shift < size ? std::min(outputs, (size - shift + stride - 1) / stride) : 0};
  }

  Range range(int64_t i) const {
    if (kernel == 0) {
      const int64_t first = i * size / outputs, last = ((i + 1) * size + outputs - 1) / outputs;
      return {first, last, last - first};
    }
    int64_t first = i * stride - pad;
    const int64_t end = std::min(first + (kernel - 1) * dilation + 1, size + pad);
    const int64_t padded = end - first;
    if (first < 0) first += (-first + dilation - 1) / dilation * dilation;
    return {first, std::min(end, size), padded};
  }
};

// Whether `value` is the maximum of a window in place of an earlier one; a NaN is.
bool wins(float value, float largest) { return (value > largest) | (value != value); }

// The greater of every output and its pixel with one tap. A stride that is known when this is compiled makes vectors.
template <int64_t kStride>
void keep_maxima(const float* from, int64_t stride, const Direction::Reach& reach, float* __restrict out) {
  const int64_t step = kStride == 0 ? stride : kStride;
  for (int64_t j = reach.first; j < reach.last; ++j) {
    const float value = from[j * step], before = out[j];
    out[j] = wins(value, before) ? value : before;
  }
}

// A sequence [N, C, L] is an image of height 1.
struct Planes {
  int64_t count, in_floats, out_floats;
  Direction vertical, horizontal;

  // Kernel, stride and padding stand in the stack from `at` on, and the dilation behind them where there is one.
  Planes(const Arguments& a, const Tensor& in, const Tensor& out, size_t at, bool dilated)
      : count(in.size(0) * in.size(1)),
        vertical{height(in), height(out), a.pair(at, 0), a.pair(at + 1, 0), a.pair(at + 2, 0), 1},
        horizontal{width(in), width(out), a.pair(at, 1), a.pair(at + 1, 1), a.pair(at + 2, 1), 1} {
    if (dilated) {
      vertical.dilation = a.pair(at + 3, 0);
      horizontal.dilation = a.pair(at + 3, 1);
    }
    in_floats = vertical.size * horizontal.size;
    out_floats = vertical.outputs * horizontal.outputs;
  }

  // body(plane, output's index in the plane, rows, columns of its window)
  template <typename Body>
  void windows(const Body& body) const {
    for (int64_t i = 0; i < vertical.outputs; ++i) {
      const Direction::Range rows = vertical.range(i);
      for (int64_t j = 0; j < horizontal.outputs; ++j) {
        body(i * horizontal.outputs + j, rows, horizontal.range(j));
      }
    }
  }

  // Index of the first maximum of a window, as PyTorch picks it; a NaN wins; -1 for a window without pixels.
  int64_t first_maximum(const float* plane, const Direction::Range& rows, const Direction::Range& columns) const {
    if (rows.first >= rows.last || columns.first >= columns.last) return -1;
    int64_t best = rows.first * horizontal.size + columns.first;
    float largest = plane[best];
    for (int64_t h = rows.first; h < rows.last; h += vertical.dilation) {
      for (int64_t w = columns.first; w < columns.last; w += horizontal.dilation) {
        // No branch: which pixel is the largest cannot be foreseen.
        const int64_t at = h * horizontal.size + w;
        const bool better = wins(plane[at], largest);
        best = better ? at : best;
        largest = better ? plane[at] : largest;
      }
    }
    return best;
  }

  // The maxima of windows of fixed size, first down the columns and then along the row; `line` takes a row of inputs.
  void maxima(const float* plane, float* line, float* out) const {
    constexpr float kLowest = -std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < vertical.outputs; ++i, out += horizontal.outputs) {
      const Direction::Range rows = vertical.range(i);
      std::fill_n(line, horizontal.size, kLowest);
      for (int64_t h = rows.first; h < rows.last; h += vertical.dilation) {
        keep_maxima<1>(plane + h * horizontal.size, 1, {0, 0, horizontal.size}, line);
      }
      std::fill_n(out, horizontal.outputs, kLowest);
      for (int64_t tap = 0; tap < horizontal.kernel; ++tap) {
        const Direction::Reach reach = horizontal.reach(tap);
        const float* from = line + reach.shift;
        if (horizontal.stride == 2) {
          keep_maxima<2>(from, 2, reach, out);
        } else {
          keep_maxima<0>(from, horizontal.stride, reach, out);
        }
      }
    }
  }

  // The same as `first_maximum` of all windows of a row, of fixed size. `largest` is scratch.
  void first_maxima(const float* plane, int64_t row, float* largest, int32_t* best) const {
    const Direction::Range rows = vertical.range(row);
    std::fill_n(largest, horizontal.outputs, -std::numeric_limits<float>::infinity());
    std::fill_n(best, horizontal.outputs, -1);
    for (int64_t h = rows.first; h < rows.last; h += vertical.dilation) {
      for (int64_t tap = 0; tap < horizontal.kernel; ++tap) {
        const Direction::Reach reach = horizontal.reach(tap);
        const int64_t begin = h * horizontal.size + reach.shift;
        for (int64_t j = reach.first; j < reach.last; ++j) {
          const int64_t at = begin + j * horizontal.stride;
          const bool better = wins(plane[at], largest[j]) | (best[j] < 0);
          largest[j] = better ? plane[at] : largest[j];
          best[j] = better ? static_cast<int32_t>(at) : best[j];
        }
      }
    }
  }

  // Whether windows are of fixed size, enough of them stand in a row to go tap by tap, and a row fits the workspace.
  bool by_rows() const {
    return horizontal.kernel > 0 && horizontal.outputs >= 4 &&
           horizontal.size + 2 * horizontal.outputs <= kWorkspaceFloats &&
           in_floats <= std::numeric_limits<int32_t>::max();
  }
};

// What the sum of a window is divided by.
struct Divisor {
  bool count_padding;
  int64_t fixed;  // 0: the number of pixels
  float of(const Direction::Range& rows, const Direction::Range& columns) const {
    if (fixed != 0) return static_cast<float>(fixed);
    const int64_t inside = (rows.last - rows.first) * (columns.last - columns.first);
    return static_cast<float>(count_padding ? rows.padded * columns.padded : inside);
  }
};

}  // namespace

void max_pool2d(Context&, Stack stack) {
  const Arguments a(stack);
  const Planes planes(a, a.tensor(0), a.tensor(6), 1, true);
  const bool by_rows = planes.by_rows();
  parallel_for(planes.count, [&](int64_t task, float* workspace) {
    const float* plane = a.read(0) + task * planes.in_floats;
    float* out = a.write(6) + task * planes.out_floats;
    if (by_rows) {
      planes.maxima(plane, workspace, out);
      return;
    }
    planes.windows([&](int64_t index, const Direction::Range& rows, const Direction::Range& columns) {
      const int64_t at = planes.first_maximum(plane, rows, columns);
      out[index] = at < 0 ? -std::numeric_limits<float>::infinity() : plane[at];
    });
  });
}

void max_pool2d_backward(Context&, Stack stack) {
  const Arguments a(stack);
  const Planes planes(a, a.tensor(1), a.tensor(0), 2, true);
  const bool by_rows = planes.by_rows();
  parallel_for(planes.count, [&](int64_t task, float* workspace) {
    const float* gradient = a.read(0) + task * planes.out_floats;
    const float* plane = a.read(1) + task * planes.in_floats;
    float* out = a.write(7) + task * planes.in_floats;
    std::fill_n(out, planes.in_floats, 0.0f);
    if (!by_rows) {
      planes.windows([&](int64_t index, const Direction::Range& rows, const Direction::Range& columns) {
        const int64_t at = planes.first_maximum(plane, rows, columns);
        if (at >= 0) out[at] += gradient[index];
      });
      return;
    }
    const int64_t outputs = planes.horizontal.outputs;
    int32_t* best = reinterpret_cast<int32_t*>(workspace + outputs);
    for (int64_t i = 0; i < planes.vertical.outputs; ++i, gradient += outputs) {
      planes.first_maxima(plane, i, workspace, best);
      for (int64_t j = 0; j < outputs; ++j) {
        if (best[j] >= 0) out[best[j]] += gradient[j];
      }
    }
  });
}

void average_pool2d(Context&, Stack stack) {
  const Arguments a(stack);
  const Planes planes(a, a.tensor(0), a.tensor(6), 1, false);
  const Divisor divisor{a.flag(4), a.integer(5)};
  parallel_for(planes.count, [&](int64_t task, float*) {
    const float* plane = a.read(0) + task * planes.in_floats;
    float* out = a.write(6) + task * planes.out_floats;
    planes.windows([&](int64_t index, const Direction::Range& rows, const Direction::Range& columns) {
      double total = 0;
      for (int64_t h = rows.first; h < rows.last; ++h) {
        const float* line = plane + h * planes.horizontal.size;
        for (int64_t w = columns.first; w < columns.last; ++w) total += line[w];
      }
      out[index] = static_cast<float>(total) / divisor.of(rows, columns);
    });
  });
}

// Reads no input: its shape is the output's.
void average_pool2d_backward(Context&, Stack stack) {
  const Arguments a(stack);
  const Planes planes(a, a.tensor(6), a.tensor(0), 1, false);
  const Divisor divisor{a.flag(4), a.integer(5)};
  parallel_for(planes.count, [&](int64_t task, float*) {
    const float* gradient = a.read(0) + task * planes.out_floats;
    float* out = a.write(6) + task * planes.in_floats;
    std::fill_n(out, planes.in_floats, 0.0f);
    planes.windows([&](int64_t index, const Direction::Range& rows, const Direction::Range& columns) {
      const float share = gradient[index] / divisor.of(rows, columns);
      for (int64_t h = rows.first; h < rows.last; ++h) {
        float* line = out + h * planes.horizontal.size;
        for (int64_t w = columns.first; w < columns.last; ++w) line[w] += share;
      }
    });
  });
}

void global_average_pool(Context&, Stack stack) {
  const Arguments a(stack);
  const Channels c(a.tensor(0));
  const float* x = a.read(0);
  float* out = a.write(1);
  row_pieces(c.batch * c.channels, c.inner, [&](int64_t first, int64_t last) {
    for (int64_t plane = first; plane < last; ++plane) {
      double total = 0;
      for (int64_t i = 0; i < c.inner; ++i) total += x[plane * c.inner + i];
      out[plane] = static_cast<float>(total / static_cast<double>(c.inner));
    }
  });
}

void global_average_pool_backward(Context&, Stack stack) {
  const Arguments a(stack);
  const Channels c(a.tensor(1));
  const float* gradient = a.read(0);
  float* out = a.write(1);
  row_pieces(c.batch * c.channels, c.inner, [&](int64_t first, int64_t last) {
    for (int64_t plane = first; plane < last; ++plane) {
      std::fill_n(out + plane * c.inner, c.inner, gradient[plane] / static_cast<float>(c.inner));
    }
  });
}

}  // namespace profl
