// The tile kernels, written once with vector extensions and compiled per instruction set.
// The including file defines PROFL_LANES, PROFL_ROWS, PROFL_TILE_NAME and PROFL_TILE_OBJECT. Everything has internal
// linkage: no code of one instruction set can leak into another through a shared symbol.
#include <algorithm>

#include "kernels/tiles/gemm_tile.h"

namespace profl {
namespace {

typedef float Vector __attribute__((vector_size(PROFL_LANES * 4), aligned(4), may_alias));

static_assert(PROFL_ROWS <= kMaxTileRows, "row pointers are kept in arrays of kMaxTileRows");

template <int Vectors, typename Left, typename Right>
inline __attribute__((always_inline)) void tile(int depth, Left left, Right right, float* c, int64_t ldc, bool add) {
  Vector sum[PROFL_ROWS][Vectors] = {};
  for (int k = 0; k < depth; ++k) {
    const float* b = right(k);
    Vector columns[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) columns[v] = *reinterpret_cast<const Vector*>(b + v * PROFL_LANES);
#pragma GCC unroll 16
    for (int r = 0; r < PROFL_ROWS; ++r) {
      const float row = left(r, k);
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sum[r][v] += row * columns[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < PROFL_ROWS; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      Vector& to = *reinterpret_cast<Vector*>(c + r * ldc + v * PROFL_LANES);
      to = add ? to + sum[r][v] : sum[r][v];
    }
  }
}

template <int Vectors>
void gathered(int depth, const float* a, const float* b, const int32_t* offsets, float* c, int64_t ldc, bool add) {
  tile<Vectors>(
      depth, [a](int r, int k) { return a[static_cast<int64_t>(k) * PROFL_ROWS + r]; },
      [b, offsets](int k) { return b + offsets[k]; }, c, ldc, add);
}

template <int Vectors>
void streamed(int depth, const float* const* a, const float* b, float* c, int64_t ldc, bool add) {
  const float* rows[PROFL_ROWS];
#pragma GCC unroll 16
  for (int r = 0; r < PROFL_ROWS; ++r) rows[r] = a[r];
  tile<Vectors>(
      depth, [&rows](int r, int k) { return rows[r][k]; },
      [b](int k) { return b + static_cast<int64_t>(k) * Vectors * PROFL_LANES; }, c, ldc, add);
}

template <int Vectors>
void packed(int depth, const float* a, const float* b, float* c, int64_t ldc, bool add) {
  tile<Vectors>(
      depth, [a](int r, int k) { return a[static_cast<int64_t>(k) * PROFL_ROWS + r]; },
      [b](int k) { return b + static_cast<int64_t>(k) * Vectors * PROFL_LANES; }, c, ldc, add);
}

template <int Vectors>
void outer(int depth, const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, bool add) {
  tile<Vectors>(
      depth, [a, lda](int r, int k) { return a[k * lda + r]; }, [b, ldb](int k) { return b + k * ldb; }, c, ldc, add);
}

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void save(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }

void weighted(int taps, const float* weights, const int32_t* offsets, const float* from, int64_t count, float* to) {
  constexpr int64_t kStep = 4 * PROFL_LANES;
  int64_t j = 0;
  for (; j + kStep <= count; j += kStep) {
    Vector sum[4] = {};
    for (int t = 0; t < taps; ++t) {
      const float* at = from + offsets[t] + j;
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) sum[v] += weights[t] * load(at + v * PROFL_LANES);
    }
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) *reinterpret_cast<Vector*>(to + j + v * PROFL_LANES) = sum[v];
  }
  for (; j < count; j += PROFL_LANES) {
    Vector sum = {};
    for (int t = 0; t < taps; ++t) sum += weights[t] * load(from + offsets[t] + j);
    *reinterpret_cast<Vector*>(to + j) = sum;
  }
}

template <int Dots>
void dots(const float* a, const float* b, const int32_t* offsets, int64_t count, double* sums) {
  const float* at[Dots];
  Vector even[Dots] = {}, odd[Dots] = {};
#pragma GCC unroll 8
  for (int t = 0; t < Dots; ++t) at[t] = b + offsets[t];
  int64_t j = 0;
  for (; j + 2 * PROFL_LANES <= count; j += 2 * PROFL_LANES) {
    const Vector first = load(a + j), second = load(a + j + PROFL_LANES);
#pragma GCC unroll 8
    for (int t = 0; t < Dots; ++t) {
      even[t] += first * load(at[t] + j);
      odd[t] += second * load(at[t] + j + PROFL_LANES);
    }
  }
  if (j < count) {
    const Vector first = load(a + j);
#pragma GCC unroll 8
    for (int t = 0; t < Dots; ++t) even[t] += first * load(at[t] + j);
  }
#pragma GCC unroll 8
  for (int t = 0; t < Dots; ++t) {
    const Vector both = even[t] + odd[t];
    double total = 0;
    for (int lane = 0; lane < PROFL_LANES; ++lane) total += both[lane];
    sums[t] += total;
  }
}

}  // namespace
}  // namespace profl

#include "kernels/tiles/depthwise_tile_body.h"
#include "kernels/tiles/turn_tile_body.h"
#include "kernels/tiles/winograd_tile_body.h"

namespace profl {

const TileKernels PROFL_TILE_OBJECT = {PROFL_TILE_NAME,
                                       PROFL_ROWS,
                                       PROFL_LANES,
                                       {gathered<1>, gathered<2>, gathered<3>},
                                       {streamed<1>, streamed<2>, streamed<3>},
                                       {packed<1>, packed<2>, packed<3>},
                                       {outer<1>, outer<2>, outer<3>},
                                       turn,
                                       turn_back,
                                       kWinograd,
                                       weighted,
                                       {dots<1>, dots<2>, dots<3>, dots<4>, dots<5>},
                                       lane_sums,
                                       {lane_dots<1>, lane_dots<2>, lane_dots<3>, lane_dots<4>, lane_dots<5>,
                                        lane_dots<6>, lane_dots<7>, lane_dots<8>, lane_dots<9>},
                                       lane_affine};

}  // namespace profl
