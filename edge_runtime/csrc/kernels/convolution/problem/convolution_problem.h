// What a convolution and its input gradient have in common: the sums to compute and where each of them goes.
#pragma once

#include <cstdint>

#include "kernels/activation/activation.h"
#include "kernels/convolution/problem/convolution_lines.h"

namespace profl {

// out[n, m, i * step_h + first_h, j * step_w + first_w] =
//   epilogue(sum over channel c, taps of weight[m * row_stride + c * channel_stride + tap's index] * patch)
struct Problem {
  Source source;
  int64_t channels;
  const float* weight;
  int64_t row_stride, channel_stride, group_stride, kernel_w;
  float* out;
  int64_t out_channels_total, out_h, out_w;
  int64_t rows;
  int64_t step_h = 1, step_w = 1, first_h = 0, first_w = 0;
  bool forward = false;  // of a network's forward pass, whose results activations are applied to
  // Epilogue: v * scale[m] + shift[m] (+ residual at the output's place), then the activation. Null means not there.
  const float* scale = nullptr;
  const float* shift = nullptr;
  const float* residual = nullptr;
  Activation activation = Activation::none;

  // Where neighbours do not meet (1x1 kernels, no padding) and every output has a sum, planes become single rows, whose
  // runs are longer.
  void flatten();
  // Makes this the problem of the group behind: its input channels, weights and output channels follow this one's.
  void next_group();
  // Finishes `count` sums, neighbours along a row of the grid, of output channel `m` and writes them to their places.
  void put(const float* sums, int64_t m, int64_t image, int64_t row, int64_t column, int64_t count) const;
};

}  // namespace profl
