// Winograd's transforms of 3x3 convolutions, for vectors of `lanes` channels.
#pragma once

#include <cstdint>

namespace profl {

// sums[sum] += inputs[input] * weights[weight], numbers of points.
struct WinogradProduct {
  int32_t input, weight, sum;
};

// A tile of `output_step` outputs a side is computed from a window of `input_step` + `input_halo` inputs a side: both,
// and the kernel, become points, which `products` multiply and add up. Pixels lie as [row][column][lane], `row` floats
// from row to row; points `point` floats from one to the next and tiles `next` floats. Windows hold `tiles` tiles side
// by side.
struct WinogradKernels {
  static constexpr int kMostPoints = 36;
  int64_t input_step, input_halo, output_step;
  int64_t inputs, weights, sums;  // points
  int64_t product_count;
  const WinogradProduct* products;

  void (*input)(const float* window, int64_t row, int64_t tiles, float* to, int64_t next, int64_t point);
  // Sums to outputs.
  void (*output)(const float* from, int64_t next, int64_t point, int64_t tiles, float* window, int64_t row);
  // A kernel, whose taps lie `row` and `column` floats apart.
  void (*weight)(const float* from, int64_t row, int64_t column, float* to, int64_t point);
  // For the weight gradient products run backward: weights[weight] += inputs[input] * sums[sum]. The gradients of
  // outputs to those of sums, and those of weights to that of the kernel, as [3][3][lane].
  void (*gradient)(const float* window, int64_t row, int64_t tiles, float* to, int64_t next, int64_t point);
  void (*weight_gradient)(const float* from, int64_t point, float* to);
};

struct WinogradKinds {
  WinogradKernels four, two;   // stride 1, tiles of 4x4 and 2x2 outputs
  WinogradKernels strided;     // stride 2
  WinogradKernels transposed;  // the input gradient of stride 2 and padding 1
};

}  // namespace profl
