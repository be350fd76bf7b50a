// Max pooling and global average pooling.
#include <algorithm>
#include <limits>

#include "kernels/kernels.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

struct Window {
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  Window(const Arguments& a, size_t at)
      : kernel_h(a.pair(at, 0)),
        kernel_w(a.pair(at, 1)),
        stride_h(a.pair(at + 1, 0)),
        stride_w(a.pair(at + 1, 1)),
        pad_h(a.pair(at + 2, 0)),
        pad_w(a.pair(at + 2, 1)),
        dilation_h(a.pair(at + 3, 0)),
        dilation_w(a.pair(at + 3, 1)) {}

  // Index of the first maximum of the window at output (i, j), as PyTorch picks it; a NaN wins.
  int64_t first_maximum(const float* plane, int64_t height, int64_t width, int64_t i, int64_t j) const {
    int64_t best = -1;
    float largest = -std::numeric_limits<float>::infinity();
    for (int64_t kh = 0; kh < kernel_h; ++kh) {
      const int64_t h = i * stride_h - pad_h + kh * dilation_h;
      if (h < 0 || h >= height) continue;
      for (int64_t kw = 0; kw < kernel_w; ++kw) {
        const int64_t w = j * stride_w - pad_w + kw * dilation_w;
        if (w < 0 || w >= width) continue;
        const float value = plane[h * width + w];
        if (best < 0 || value > largest || value != value) {
          best = h * width + w;
          largest = value;
        }
      }
    }
    return best;
  }
};

}  // namespace

void max_pool2d(Context&, Stack stack) {
  const Arguments a(stack);
  const Window window(a, 1);
  const int64_t height = a.size(0, 2), width = a.size(0, 3), rows = a.size(6, 2), columns = a.size(6, 3);
  parallel_for(a.size(0, 0) * a.size(0, 1), [&](int64_t task, float*) {
    const float* plane = a.read(0) + task * height * width;
    float* out = a.write(6) + task * rows * columns;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        const int64_t at = window.first_maximum(plane, height, width, i, j);
        out[i * columns + j] = at < 0 ? -std::numeric_limits<float>::infinity() : plane[at];
      }
    }
  });
}

void max_pool2d_backward(Context&, Stack stack) {
  const Arguments a(stack);
  const Window window(a, 2);
  const int64_t height = a.size(1, 2), width = a.size(1, 3), rows = a.size(0, 2), columns = a.size(0, 3);
  parallel_for(a.size(1, 0) * a.size(1, 1), [&](int64_t task, float*) {
    const float* gradient = a.read(0) + task * rows * columns;
    const float* plane = a.read(1) + task * height * width;
    float* out = a.write(7) + task * height * width;
    std::fill_n(out, height * width, 0.0f);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        const int64_t at = window.first_maximum(plane, height, width, i, j);
        if (at >= 0) out[at] += gradient[i * columns + j];
      }
    }
  });
}

void global_average_pool(Context&, Stack stack) {
  const Arguments a(stack);
  const Channels c(a.tensor(0));
  const float* x = a.read(0);
  float* out = a.write(1);
  for (int64_t plane = 0; plane < c.batch * c.channels; ++plane) {
    double total = 0;
    for (int64_t i = 0; i < c.inner; ++i) total += x[plane * c.inner + i];
    out[plane] = static_cast<float>(total / static_cast<double>(c.inner));
  }
}

void global_average_pool_backward(Context&, Stack stack) {
  const Arguments a(stack);
  const Channels c(a.tensor(1));
  const float* gradient = a.read(0);
  float* out = a.write(1);
  for (int64_t plane = 0; plane < c.batch * c.channels; ++plane) {
    std::fill_n(out + plane * c.inner, c.inner, gradient[plane] / static_cast<float>(c.inner));
  }
}

}  // namespace profl
