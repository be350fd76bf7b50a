// Winograd's transforms of 3x3 convolutions, for vectors of `lanes` channels.
#pragma once

#include <cstdint>

namespace profl {

constexpr int kWinogradTiles = 2;  // kinds: 4x4 and 2x2 outputs
constexpr int64_t kWinogradMostPoints = 6;

// A convolution tile of tile x tile outputs becomes points x points products of single numbers. A window is pixels as
// [row][column][lane], `row` floats from row to row; transformed values lie `point` floats from point to point, and
// `next` floats from tile to tile. Windows hold `tiles` tiles side by side.
struct WinogradKernels {
  int64_t tile, points;
  // Of inputs: windows of neighbouring tiles overlap by two pixels.
  void (*input)(const float* window, int64_t row, int64_t tiles, float* to, int64_t next, int64_t point);
  // Of the gradients of outputs.
  void (*gradient)(const float* window, int64_t row, int64_t tiles, float* to, int64_t next, int64_t point);
  // Of sums of products, back to outputs.
  void (*output)(const float* from, int64_t next, int64_t point, int64_t tiles, float* window, int64_t row);
  // Of a kernel, whose taps lie `row` and `column` floats apart.
  void (*weight)(const float* from, int64_t row, int64_t column, float* to, int64_t point);
  // Of sums of products, back to the gradient of a kernel, as [3][3][lane].
  void (*weight_gradient)(const float* from, int64_t point, float* to);
};

}  // namespace profl
