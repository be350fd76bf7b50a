// Register tiles, the innermost loops of the convolutions, chosen once for the machine's instruction set.
#pragma once

#include <cstdint>

#include "kernels/tiles/winograd_tile.h"

namespace profl {

constexpr int kMaxTileRows = 8;
constexpr int kTileVectors = 3;
constexpr int kMaxLanes = 16;
constexpr int kMaxTileFloats = kMaxTileRows * kTileVectors * kMaxLanes;
constexpr int kMaxDots = 5;
constexpr int kMaxLaneDots = 9;

// Each kernel computes c[r][j] (+)= a product, for `rows` rows and 1 to kTileVectors vectors of `lanes` columns; the
// entry of index v handles v + 1 vectors. `c` has row stride `ldc`. With `add` the product is added to what is in c:
// a long sum is built from short ones, which keeps its rounding error small.
struct TileKernels {
  const char* name;
  int rows, lanes;
  // c[r][j] (+)= sum over k of a[k * rows + r] * b[offsets[k] + j]
  void (*gathered[kTileVectors])(int depth, const float* a, const float* b, const int32_t* offsets, float* c,
                                 int64_t ldc, bool add);
  // c[r][j] (+)= sum over k of a[r][k] * b[k * vectors * lanes + j]
  void (*streamed[kTileVectors])(int depth, const float* const* a, const float* b, float* c, int64_t ldc, bool add);
  // c[r][j] (+)= sum over k of a[k * rows + r] * b[k * vectors * lanes + j]
  void (*packed[kTileVectors])(int depth, const float* a, const float* b, float* c, int64_t ldc, bool add);

  // c[r][j] (+)= sum over k of a[k * lda + r] * b[k * ldb + j]
  void (*outer[kTileVectors])(int depth, const float* a, int64_t lda, const float* b, int64_t ldb, float* c,
                              int64_t ldc, bool add);

  // to[places[j] + r] = from[r * stride + j] for j < count and r < lanes, zeros for r >= lines. Without places it is
  // j * lanes. Of each line `readable` >= count floats may be read.
  void (*turn)(const float* from, int64_t stride, int64_t lines, int64_t count, int64_t readable, const int32_t* places,
               float* to);
  // to[r * stride + j] = from[places[j] + r] for j < count and every lane r. With `spill` a line may be followed by
  // garbage, up to a vector from its beginning; then count <= lanes.
  void (*turn_back)(const float* from, const int32_t* places, int64_t count, float* to, int64_t stride, bool spill);
  WinogradKinds winograd;

  // The depthwise convolutions: runs of whole vectors, `count` a multiple of `lanes`.
  // to[j] = sum over taps t of weights[t] * from[offsets[t] + j]
  void (*weighted)(int taps, const float* weights, const int32_t* offsets, const float* from, int64_t count, float* to);
  // sums[t] += sum over j of a[j] * b[offsets[t] + j], for t < dots; the entry of index i has i + 1 dots.
  void (*dots[kMaxDots])(const float* a, const float* b, const int32_t* offsets, int64_t count, double* sums);

  // The same on vectors of channels; every place and offset is that of a vector.
  // to[to_places[j]] = sum over taps t of weights[t * lanes] * from[places[j] + offsets[t]]
  void (*lane_sums)(int taps, const float* weights, const int32_t* offsets, const float* from, const int32_t* places,
                    int64_t count, float* to, const int32_t* to_places);
  // sums[t * lanes] += sum over j of a[j * lanes] * b[places[j] + offsets[t]], for t < dots; the entry of index i has
  // i + 1 dots.
  void (*lane_dots[kMaxLaneDots])(const float* a, const float* b, const int32_t* places, const int32_t* offsets,
                                  int64_t count, float* sums);
  // values[j * lanes] = values[j * lanes] * scale + shift
  void (*lane_affine)(const float* scale, const float* shift, float* values, int64_t count);
};

extern const TileKernels kTileBaseline;
#if defined(__x86_64__)
extern const TileKernels kTileAvx2;
extern const TileKernels kTileAvx512;
#endif

// The best kernels this processor can run.
const TileKernels& tile_kernels();

}  // namespace profl
