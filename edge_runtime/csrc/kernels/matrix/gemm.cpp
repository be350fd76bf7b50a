#include "kernels/matrix/gemm.h"

#include <algorithm>

#include "kernels/common/turn.h"
#include "kernels/tiles/gemm_tile.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

// Sizes of packed blocks: kDepth * (kRows + kColumns) floats and one tile make the workspace. All are multiples of
// every instruction set's tiles.
constexpr int64_t kDepth = 256;
constexpr int64_t kRows = 96;
constexpr int64_t kColumns = 384;
static_assert(kTileMultiple % kMaxTileRows == 0 && kTileMultiple % kMaxLanes == 0);
static_assert((kDepth * (kRows + kColumns) + kMaxTileFloats) * sizeof(float) <= kGemmWorkspaceBytes);

// to[k * width + r] = the operand's element of line r (row of a, column of b) and depth k, for `lines` lines and
// zeros up to `width`. `along`: the depths of one line are neighbours in memory; else the lines of one depth.
void pack_panel(const float* from, int64_t stride, bool along, int64_t lines, int64_t depth, int64_t width, float* to) {
  if (!along && lines == width) {
    // Whole panels, which are most of all: a call for each copy would cost more than the copy.
    for (int64_t k = 0; k < depth; ++k, from += stride, to += width) {
      for (int64_t r = 0; r < width; r += 4) copy_quad(from + r, to + r);
    }
    return;
  }
  if (!along) {
    for (int64_t k = 0; k < depth; ++k, from += stride, to += width) {
      std::copy_n(from, lines, to);
      std::fill_n(to + lines, width - lines, 0.0f);
    }
    return;
  }
  int64_t r = 0;
  for (; r + 4 <= lines; r += 4) {
    const float* rows = from + r * stride;
    int64_t k = 0;
    for (; k + 4 <= depth; k += 4) turn_quad(rows + k, stride, width, to + k * width + r);
    for (; k < depth; ++k) {
      for (int64_t i = 0; i < 4; ++i) to[k * width + r + i] = rows[i * stride + k];
    }
  }
  for (; r < width; ++r) {
    for (int64_t k = 0; k < depth; ++k) to[k * width + r] = r < lines ? from[r * stride + k] : 0.0f;
  }
}

// Packs `lines` lines as panels of `panel`; the last is as wide as the next of `multiple` that holds it.
void pack(const float* from, int64_t stride, bool along, int64_t lines, int64_t depth, int64_t panel, int64_t multiple,
          float* to) {
  for (int64_t r = 0; r < lines; r += panel) {
    const int64_t here = std::min(panel, lines - r);
    pack_panel(from + r * (along ? stride : 1), stride, along, here, depth, round_up(here, multiple), to + r * depth);
  }
}

// The columns of b in panels of kTileVectors vectors, the last of as many as hold its columns: each lies along the sum.
void pack_columns(const TileKernels& tiles, const float* from, int64_t stride, int64_t columns, int64_t depth,
                  float* to) {
  const int64_t lanes = tiles.lanes, panel = kTileVectors * lanes;
  int32_t places[kDepth];
  int64_t placed = 0;
  for (int64_t j = 0; j < columns; j += panel) {
    const int64_t here = std::min(panel, columns - j), width = round_up(here, lanes);
    for (int64_t k = 0; placed != width && k < depth; ++k) places[k] = static_cast<int32_t>(k * width);
    placed = width;
    for (int64_t v = 0; v < width; v += lanes) {
      tiles.turn(from + (j + v) * stride, stride, std::min(lanes, here - v), depth, depth, places, to + j * depth + v);
    }
  }
}

// The rows of a for one tile: packed, or where they lie.
struct TileRows {
  const float* packed;
  const float* lying[kMaxTileRows];
};

void multiply_rows(const TileKernels& tiles, int64_t depth, const TileRows& a, const float* b, int64_t vectors,
                   float* c, int64_t ldc, bool add) {
  if (a.packed == nullptr) {
    tiles.streamed[vectors - 1](static_cast<int>(depth), a.lying, b, c, ldc, add);
  } else {
    tiles.packed[vectors - 1](static_cast<int>(depth), a.packed, b, c, ldc, add);
  }
}

// One tile; what sticks out over the matrix goes through `spare`.
void multiply_tile(const TileKernels& tiles, int64_t depth, const TileRows& a, const float* b, int64_t vectors,
                   int64_t rows, int64_t columns, bool spill, float* c, int64_t ldc, bool add, float* spare) {
  const int64_t width = vectors * tiles.lanes;
  if (spill || (rows == tiles.rows && columns == width)) {
    multiply_rows(tiles, depth, a, b, vectors, c, ldc, add);
    return;
  }
  multiply_rows(tiles, depth, a, b, vectors, spare, width, false);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      const float value = spare[i * width + j];
      c[i * ldc + j] = add ? c[i * ldc + j] + value : value;
    }
  }
}

// One block of c against `depth` values of the sum: `b` is packed already, and so are the rows of `a` but for the first
// `lying`, which are read from `from`.
void multiply_block(const TileKernels& tiles, const Gemm& g, int64_t i0, int64_t rows, int64_t j0, int64_t columns,
                    int64_t depth, const float* from, int64_t lying, const float* a, const float* b, bool add,
                    float* spare) {
  const int64_t panel = kTileVectors * tiles.lanes;
  for (int64_t j = 0; j < columns; j += panel) {
    const int64_t here = std::min(panel, columns - j), vectors = ceil_div(here, tiles.lanes);
    for (int64_t i = 0; i < rows; i += tiles.rows) {
      TileRows at{};
      if (i < lying) {
        for (int r = 0; r < tiles.rows; ++r) at.lying[r] = from + (i + r) * g.lda;
      } else {
        at.packed = a + (i - lying) * depth;
      }
      multiply_tile(tiles, depth, at, b + j * depth, vectors, std::min<int64_t>(tiles.rows, rows - i), here, g.spill,
                    g.c + (i0 + i) * g.ldc + j0 + j, g.ldc, add, spare);
    }
  }
}

}  // namespace

void gemm(const Gemm& g, float* workspace) {
  const TileKernels& tiles = tile_kernels();
  float *a = workspace, *b = a + kRows * kDepth, *spare = b + kColumns * kDepth;
  const int64_t panel = kTileVectors * tiles.lanes;
  const bool accumulate = g.accumulate || g.bias != nullptr;
  for (int64_t j0 = 0; j0 < g.n; j0 += kColumns) {
    const int64_t columns = std::min(kColumns, g.n - j0);
    for (int64_t k0 = 0; k0 < g.k || k0 == 0; k0 += kDepth) {
      const int64_t depth = std::min(kDepth, g.k - k0);
      const float* columns_from = g.transpose_b ? g.b + j0 * g.ldb + k0 : g.b + k0 * g.ldb + j0;
      if (g.transpose_b) {
        pack_columns(tiles, columns_from, g.ldb, columns, depth, b);
      } else {
        pack(columns_from, g.ldb, false, columns, depth, panel, tiles.lanes, b);
      }
      for (int64_t i0 = 0; i0 < g.m; i0 += kRows) {
        const int64_t rows = std::min(kRows, g.m - i0);
        const float* from = g.transpose_a ? g.a + k0 * g.lda + i0 : g.a + i0 * g.lda + k0;
        // Rows whose values are neighbours in memory are read as they lie; packing them costs more than it gains.
        const int64_t lying = g.transpose_a ? 0 : rows / tiles.rows * tiles.rows;
        pack(from + lying * g.lda, g.lda, !g.transpose_a, rows - lying, depth, tiles.rows, tiles.rows, a);
        for (int64_t i = i0; k0 == 0 && g.bias != nullptr && i < i0 + rows; ++i) {
          std::copy_n(g.bias + j0, columns, g.c + i * g.ldc + j0);
        }
        multiply_block(tiles, g, i0, rows, j0, columns, depth, from, lying, a, b, k0 > 0 || accumulate, spare);
      }
    }
  }
}

void gemm_parallel(const Gemm& g) {
  // Blocks of c as large as possible and nearly equal, but a few for each thread where there is enough to do.
  const int64_t wanted = thread_count() == 1 ? 1 : 3 * thread_count(), panel = kTileVectors * tile_kernels().lanes;
  const int64_t columns = round_up(ceil_div(g.n, ceil_div(g.n, kColumns)), panel), across = ceil_div(g.n, columns);
  const int64_t rows = std::max(kRows, round_up(ceil_div(g.m, ceil_div(wanted, across)), kMaxTileRows));
  const int64_t down = ceil_div(g.m, rows);
  parallel_for(down * across, [&](int64_t task, float* workspace) {
    const int64_t i = task / across * rows, j = task % across * columns;
    Gemm part = g;
    part.m = std::min(rows, g.m - i);
    part.n = std::min(columns, g.n - j);
    part.a += g.transpose_a ? i : i * g.lda;
    part.b += g.transpose_b ? j * g.ldb : j;
    part.c += i * g.ldc + j;
    if (part.bias != nullptr) part.bias += j;
    gemm(part, workspace);
  });
}

}  // namespace profl
