// How the matrix products of Winograd's transforms are cut to fit one thread's workspace. The sizes that decide the
// order of sums (channels, tiles) depend on shapes only.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/gemm_tile.h"
#include "kernels/turn.h"
#include "kernels/winograd_window.h"
#include "threads/thread_pool.h"

namespace profl {

constexpr int64_t kMostOutputs = 64;  // output channels of a block

struct WinogradBlocks {
  static constexpr int64_t kWorkspaceFloats = static_cast<int64_t>(kWorkspaceBytesPerThread / sizeof(float));
  static constexpr int64_t kPad = 16;  // floats between points, so that they do not meet in the same cache sets

  int64_t points;  // in all
  int64_t channels, outputs, tiles;
  int64_t scratch_floats;

  // `shared_scratch`: windows lie in another buffer that is free at the time.
  WinogradBlocks(const WinogradKernels& kind, const TileKernels& kernels, int64_t all_channels, int64_t all_outputs,
                 int64_t most_channels, bool shared_scratch)
      : points(kind.points * kind.points),
        channels(std::min(most_channels, round_up(all_channels, kernels.lanes))),
        outputs(std::min(kMostOutputs, round_up(all_outputs, kernels.lanes))),
        scratch_floats(shared_scratch ? 0 : Window::kMostPixels * kernels.lanes) {
    const int64_t each = (kWorkspaceFloats - scratch_floats) / points - 3 * kPad;
    tiles = (each - channels * outputs) / (channels + outputs) / kMaxTileRows * kMaxTileRows;
  }

  int64_t weight_point() const { return channels * outputs + kPad; }
  int64_t input_point() const { return tiles * channels + kPad; }
  int64_t output_point() const { return tiles * outputs + kPad; }

  // Tiles of a piece: a row of them fits the scratch twice.
  int64_t most_tiles(const WinogradKernels& kind, int64_t grid_w) const {
    const int64_t widest = Window::kMostPixels / (2 * kind.tile * kind.tile);
    return grid_w > widest ? std::min(tiles, widest) : tiles;
  }

  // Cuts output channels further, until there is work for every thread.
  void share(int64_t all_outputs, int64_t others, int64_t lanes) {
    const int64_t threads = thread_count(), finest = ceil_div(all_outputs, lanes);
    int64_t blocks = ceil_div(all_outputs, outputs);
    if (others * blocks < 4 * threads) {
      while (others * blocks % threads != 0 && blocks < finest) ++blocks;
    }
    outputs = round_up(ceil_div(all_outputs, blocks), lanes);
  }
};

// Panels of vectors that are of nearly equal width: two of two are quicker than one of three and one of one.
struct Panels {
  int64_t floats, width;
  Panels(int64_t columns, int64_t lanes) : floats(round_up(columns, lanes)) {
    const int64_t vectors = floats / lanes;
    width = ceil_div(vectors, ceil_div(vectors, kTileVectors)) * lanes;
  }
  int64_t at(int64_t column) const { return std::min(width, floats - column); }
};

}  // namespace profl
