#include "kernels/convolution/convolution_product.h"

#include <algorithm>

#include "kernels/convolution/problem/convolution_lines.h"
#include "kernels/tiles/gemm_tile.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

constexpr int64_t kSlack = 64;        // a last vector may read this far behind the lines
constexpr int64_t kMostPixels = 512;  // of one piece
constexpr int64_t kDepth = 144;       // patch values of one packed block, which are added up one after the other
constexpr int64_t kMostLineFloats = 100 << 10;

// to[k * tile_rows + r] = from[r * row_stride + k], for a whole tile of rows.
void pack_tile(const float* from, int64_t row_stride, int64_t count, int64_t tile_rows, float* to) {
  for (int64_t r = 0; r < tile_rows; r += 4) {
    int64_t k = 0;
    for (; k + 4 <= count; k += 4) turn_quad(from + r * row_stride + k, row_stride, tile_rows, to + k * tile_rows + r);
    for (; k < count; ++k) {
      for (int64_t i = r; i < r + 4; ++i) to[k * tile_rows + i] = from[i * row_stride + k];
    }
  }
}

// Packs the weights of rows [m0, m0 + rows) and the given channels as [tile][k][tile_rows], zeros in missing rows.
void pack_weights(const Problem& p, int64_t m0, int64_t rows, int64_t first_channel, int64_t channels,
                  int64_t tile_rows, float* to) {
  const Taps &vertical = p.source.vertical, &horizontal = p.source.horizontal;
  int64_t at[kMaxTaps];
  int64_t taps = 0;
  bool in_order = true;  // all taps of the kernel, as they lie in memory
  for (int64_t v = 0; v < vertical.count; ++v) {
    for (int64_t h = 0; h < horizontal.count; ++h) {
      at[taps] = vertical.index[v] * p.kernel_w + horizontal.index[h];
      in_order = in_order && at[taps] == taps;
      ++taps;
    }
  }
  const int64_t tile = channels * taps * tile_rows;
  const float* first = p.weight + m0 * p.row_stride + first_channel * p.channel_stride;
  // A run of channels without gaps is one run of patch values.
  const bool joined = in_order && p.channel_stride == taps;
  const int64_t runs = joined ? 1 : channels, run = joined ? channels * taps : taps;
  for (int64_t c = 0; c < runs; ++c, first += p.channel_stride) {
    for (int64_t m = 0; m < rows; m += tile_rows) {
      float* place = to + m / tile_rows * tile + c * taps * tile_rows;
      const float* from = first + m * p.row_stride;
      const int64_t here = std::min(tile_rows, rows - m);
      if (in_order && here == tile_rows) {
        pack_tile(from, p.row_stride, run, tile_rows, place);
        continue;
      }
      for (int64_t k = 0; k < run; ++k) {
        const int64_t source = in_order ? k : at[k];
        for (int64_t r = 0; r < tile_rows; ++r) {
          place[k * tile_rows + r] = r < here ? from[r * p.row_stride + source] : 0.0f;
        }
      }
    }
  }
}

void store(const Problem& p, const Piece& piece, int64_t m0, int64_t rows, const float* sums, int64_t stride) {
  for (int64_t m = 0; m < rows; ++m, sums += stride) {
    const float* sum = sums;
    for (int64_t i = 0; i < piece.rows; ++i) {
      for (int64_t n = 0; n < piece.images; ++n, sum += piece.columns) {
        p.put(sum, m0 + m, piece.image + n, piece.row + i, piece.column, piece.columns);
      }
    }
  }
}

// How a problem is cut to fit one thread's buffer: lines | packed weights | sums.
struct Blocks {
  int64_t channels, rows, row_blocks;

  Blocks(const Problem& p, const Cut& cut, const TileKernels& tiles) {
    const Piece largest = cut.largest();
    const int64_t line_floats = Layout(p.source, largest).channel_floats(), taps = p.source.taps();
    channels = std::clamp<int64_t>(std::min(kDepth / taps, kMostLineFloats / line_floats), 1, p.channels);
    channels = ceil_div(p.channels, ceil_div(p.channels, channels));  // short sums are of nearly equal length
    const int64_t left = kWorkspaceFloats - kSlack - channels * line_floats;
    const int64_t most = left / (round_up(largest.pixels(), tiles.lanes) + channels * taps) / tiles.rows * tiles.rows;
    row_blocks = ceil_div(p.rows, most);
    // Few pieces: cut rows further, until every thread has the same share.
    const int64_t threads = thread_count(), finest = ceil_div(p.rows, tiles.rows);
    if (cut.count() < 4 * threads) {
      while (cut.count() * row_blocks % threads != 0 && row_blocks < finest) ++row_blocks;
    }
    rows = round_up(ceil_div(p.rows, row_blocks), tiles.rows);
    row_blocks = ceil_div(p.rows, rows);
  }
};

void multiply(const TileKernels& tiles, int64_t depth, int64_t rows, int64_t pixels, const float* weights,
              const float* lines, const int32_t* offsets, float* sums, int64_t stride, bool add) {
  const int64_t vectors = ceil_div(pixels, tiles.lanes);
  for (int64_t v = 0; v < vectors; v += kTileVectors) {
    const int64_t here = std::min<int64_t>(kTileVectors, vectors - v);
    for (int64_t m = 0; m < rows; m += tiles.rows) {
      tiles.gathered[here - 1](static_cast<int>(depth), weights + m * depth, lines + v * tiles.lanes, offsets,
                               sums + m * stride + v * tiles.lanes, stride, add);
    }
  }
}

}  // namespace

void solve_product(const Problem& p) {
  const TileKernels& tiles = tile_kernels();
  const Cut cut(p.source, kMostPixels);
  const Blocks blocks(p, cut, tiles);
  const int64_t taps = p.source.taps();
  parallel_for(cut.count() * blocks.row_blocks, [&](int64_t task, float* workspace) {
    const Piece piece = cut.piece(task / blocks.row_blocks);
    const int64_t m0 = task % blocks.row_blocks * blocks.rows, rows = std::min(blocks.rows, p.rows - m0);
    const Layout layout(p.source, piece);
    const int64_t channel_floats = layout.channel_floats(), stride = round_up(piece.pixels(), tiles.lanes);
    float* weights = workspace;
    float* sums = weights + blocks.rows * blocks.channels * taps;
    float* lines = sums + blocks.rows * stride;
    int32_t offsets[std::max(kDepth, kMaxTaps)];
    int64_t k = 0;
    for (int64_t c = 0; c < blocks.channels; ++c) {
      for (int64_t v = 0; v < p.source.vertical.count; ++v) {
        for (int64_t h = 0; h < p.source.horizontal.count; ++h) {
          offsets[k++] = static_cast<int32_t>(c * channel_floats + layout.offset(v, h));
        }
      }
    }
    for (int64_t c = 0; c < p.channels; c += blocks.channels) {
      const int64_t channels = std::min(blocks.channels, p.channels - c);
      pack_weights(p, m0, rows, c, channels, tiles.rows, weights);
      layout.fill(c, channels, lines);
      multiply(tiles, channels * taps, rows, piece.pixels(), weights, lines, offsets, sums, stride, c > 0);
    }
    store(p, piece, m0, rows, sums, stride);
  });
}

}  // namespace profl
