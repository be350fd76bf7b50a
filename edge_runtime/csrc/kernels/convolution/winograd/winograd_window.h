// Windows of planes, turned into vectors of channels, as Winograd's transforms read and write them.
#pragma once

#include <cstdint>

#include "kernels/convolution/problem/convolution_lines.h"
#include "kernels/tiles/gemm_tile.h"

namespace profl {

// Images of `channels_total` planes, of which the group's begin at `first`; nothing from `end` on is read.
struct Planes {
  const float* first;
  const float* end;
  int64_t channels_total, height, width;

  Planes() = default;
  Planes(const float* planes, int64_t batch, int64_t channels, int64_t total, int64_t h, int64_t w)
      : first(planes),
        end(planes + ((batch - 1) * total + channels) * h * w),
        channels_total(total),
        height(h),
        width(w) {}
  int64_t floats() const { return height * width; }
};

// Rows [top, top + height) and columns [left, left + width) of planes, which they may stick out of, as
// [row][column][lane].
class Window {
 public:
  static constexpr int64_t kMostPixels = 1164;

  Window(int64_t planes_height, int64_t planes_width, int64_t top, int64_t left, int64_t height, int64_t width,
         int64_t lanes);

  // Turns `lines` planes into lanes; zeros where the window sticks out and in missing lanes.
  void read(const TileKernels& tiles, const Planes& planes, int64_t image, int64_t channel, int64_t lines,
            float* to) const;

  // The part inside the planes as runs of neighbours in memory: whole rows are one.
  int64_t runs() const { return runs_; }
  int64_t run_pixels() const { return pixels_; }
  int64_t row(int64_t run) const { return top_ + low_row_ + run; }
  int64_t column() const { return left_ + low_column_; }
  // Writes a run of every lane as a line of `stride` floats.
  void turn_back(const TileKernels& tiles, const float* from, int64_t run, float* to, int64_t stride) const {
    tiles.turn_back(from + run * width_ * lanes_, places_, pixels_, to, stride, false);
  }

 private:
  int64_t top_, left_, height_, width_, lanes_;
  int64_t low_row_, high_row_, low_column_, high_column_;
  int64_t runs_, pixels_;
  int32_t places_[kMostPixels];  // of the first run's pixels
};

// The tiles of a piece, in units of tiles: [image][row][column], cut into strips that fit a window.
struct Tiling {
  int64_t step, halo;  // a window of r rows of tiles has r * step + halo rows of pixels
  int64_t top, left;   // of the first window

  // Rows of tiles in one window; small windows stay in the fastest cache.
  int64_t strip_rows(const Piece& piece) const;
  Window window(const Piece& piece, int64_t row, int64_t rows, int64_t height, int64_t width, int64_t lanes) const;
};

typedef void (*WindowTransform)(const float* window, int64_t row, int64_t tiles, float* to, int64_t next,
                                int64_t point);

// Transforms the given channels of a piece into to[point][tile][channel], where `next` floats lie between tiles and
// `point` between points. `scratch` holds a window.
void transform_planes(const TileKernels& tiles, const Planes& planes, const Tiling& tiling, const Piece& piece,
                      WindowTransform transform, int64_t channel, int64_t channels, float* to, int64_t next,
                      int64_t point, float* scratch);

}  // namespace profl
