// How the matrix products of Winograd's transforms are cut to fit one thread's workspace. The sizes that decide the
// order of sums (channels, tiles) depend on shapes only.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/common/turn.h"
#include "kernels/convolution/winograd/winograd_window.h"
#include "kernels/tiles/gemm_tile.h"
#include "threads/thread_pool.h"

namespace profl {

constexpr int64_t kMostOutputs = 64;    // output channels of a block
constexpr int64_t kMostChannels = 64;   // channels of a block
constexpr int64_t kSharedPoints = 25;   // more points leave room for
constexpr int64_t kFewerChannels = 32;  // so many

struct WinogradBlocks {
  static constexpr int64_t kPad = 16;  // floats between points, so that they do not meet in the same cache sets

  int64_t channels, outputs, tiles;
  int64_t scratch_floats;

  // `shared_scratch`: windows lie in another buffer that is free at the time.
  WinogradBlocks(const WinogradKernels& kind, const TileKernels& kernels, int64_t all_channels, int64_t all_outputs,
                 bool shared_scratch)
      : outputs(std::min(kMostOutputs, round_up(all_outputs, output_unit(kernels)))),
        scratch_floats(shared_scratch ? 0 : Window::kMostPixels * kernels.lanes) {
    const bool large = shared_scratch || kind.product_count <= kSharedPoints;
    channels = std::min(large ? kMostChannels : kFewerChannels, round_up(all_channels, kernels.lanes));
    const int64_t points = kind.inputs + kind.weights + kind.sums;
    const int64_t left = kWorkspaceFloats - scratch_floats - points * kPad - kind.weights * channels * outputs;
    tiles = left / (kind.inputs * channels + kind.sums * outputs) / kMaxTileRows * kMaxTileRows;
    // A row of tiles fits the scratch, as outputs twice.
    const int64_t window = kind.input_step + kind.input_halo;
    widest = std::min((Window::kMostPixels / window - kind.input_halo) / kind.input_step,
                      Window::kMostPixels / (2 * kind.output_step * kind.output_step));
  }

  // From point to point.
  int64_t weight_floats() const { return channels * outputs + kPad; }
  int64_t input_floats() const { return tiles * channels + kPad; }
  int64_t sum_floats() const { return tiles * outputs + kPad; }

  int64_t most_tiles(int64_t grid_w) const { return grid_w > widest ? std::min(tiles, widest) : tiles; }

  // Cuts output channels further, until there is work for every thread.
  void share(int64_t all_outputs, int64_t others, const TileKernels& kernels) {
    const int64_t threads = thread_count(), unit = output_unit(kernels), finest = ceil_div(all_outputs, unit);
    int64_t blocks = ceil_div(all_outputs, outputs);
    if (others * blocks < 4 * threads) {
      while (others * blocks % threads != 0 && blocks < finest) ++blocks;
    }
    outputs = round_up(ceil_div(all_outputs, blocks), unit);
  }

 private:
  // Output channels are lanes of the transforms, and rows of the tiles of the weight gradient.
  static int64_t output_unit(const TileKernels& kernels) { return std::max(kernels.lanes, kernels.rows); }

  int64_t widest;
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
