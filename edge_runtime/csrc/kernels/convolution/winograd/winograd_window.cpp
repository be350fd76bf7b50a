#include "kernels/convolution/winograd/winograd_window.h"

#include <algorithm>

namespace profl {

Window::Window(int64_t planes_height, int64_t planes_width, int64_t top, int64_t left, int64_t height, int64_t width,
               int64_t lanes)
    : top_(top), left_(left), height_(height), width_(width), lanes_(lanes) {
  low_row_ = std::clamp<int64_t>(-top, 0, height);
  high_row_ = std::clamp<int64_t>(planes_height - top, low_row_, height);
  low_column_ = std::clamp<int64_t>(-left, 0, width);
  high_column_ = std::clamp<int64_t>(planes_width - left, low_column_, width);
  const int64_t rows = high_row_ - low_row_, columns = high_column_ - low_column_;
  const bool joined = columns == planes_width;
  runs_ = joined ? 1 : rows;
  pixels_ = joined ? rows * columns : columns;
  int32_t* place = places_;
  for (int64_t i = 0; i < (joined ? rows : 1); ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      *place++ = static_cast<int32_t>(((low_row_ + i) * width + low_column_ + j) * lanes);
    }
  }
}

void Window::read(const TileKernels& tiles, const Planes& planes, int64_t image, int64_t channel, int64_t lines,
                  float* to) const {
  const int64_t row_floats = width_ * lanes_;
  std::fill_n(to, low_row_ * row_floats, 0.0f);
  for (int64_t i = low_row_; i < high_row_; ++i) {
    std::fill_n(to + i * row_floats, low_column_ * lanes_, 0.0f);
    std::fill_n(to + i * row_floats + high_column_ * lanes_, (width_ - high_column_) * lanes_, 0.0f);
  }
  std::fill_n(to + high_row_ * row_floats, (height_ - high_row_) * row_floats, 0.0f);
  if (pixels_ == 0) return;
  const float* plane = planes.first + (image * planes.channels_total + channel) * planes.floats();
  for (int64_t run = 0; run < runs_; ++run) {
    const float* from = plane + row(run) * planes.width + column();
    const int64_t readable = planes.end - (from + (lines - 1) * planes.floats());
    // Whole vectors may be read behind the run where other planes follow.
    const int64_t allowed = std::min(readable, round_up(pixels_, lanes_));
    tiles.turn(from, planes.floats(), lines, pixels_, allowed, places_, to + run * row_floats);
  }
}

int64_t Tiling::strip_rows(const Piece& piece) const {
  constexpr int64_t kPixels = 400;
  const int64_t width = piece.columns * step + halo;
  return std::clamp<int64_t>((kPixels / width - halo) / step, 1, piece.rows);
}

Window Tiling::window(const Piece& piece, int64_t row, int64_t rows, int64_t height, int64_t width,
                      int64_t lanes) const {
  return Window(height, width, (piece.row + row) * step + top, piece.column * step + left, rows * step + halo,
                piece.columns * step + halo, lanes);
}

void transform_planes(const TileKernels& tiles, const Planes& planes, const Tiling& tiling, const Piece& piece,
                      WindowTransform transform, int64_t channel, int64_t channels, float* to, int64_t next,
                      int64_t point, float* scratch) {
  const int64_t strip = tiling.strip_rows(piece), lanes = tiles.lanes;
  const int64_t row_floats = (piece.columns * tiling.step + tiling.halo) * lanes;
  for (int64_t row = 0; row < piece.rows; row += strip) {
    const int64_t rows = std::min(strip, piece.rows - row);
    const Window window = tiling.window(piece, row, rows, planes.height, planes.width, lanes);
    for (int64_t n = 0; n < piece.images; ++n) {
      float* first = to + (n * piece.rows + row) * piece.columns * next;
      for (int64_t c = 0; c < channels; c += lanes) {
        window.read(tiles, planes, piece.image + n, channel + c, std::min<int64_t>(lanes, channels - c), scratch);
        for (int64_t r = 0; r < rows; ++r) {
          transform(scratch + r * tiling.step * row_floats, row_floats, piece.columns,
                    first + r * piece.columns * next + c, next, point);
        }
      }
    }
  }
}

}  // namespace profl
