#include "kernels/convolution/problem/convolution_lines.h"

#include <algorithm>

namespace profl {
namespace {

typedef float Quad __attribute__((vector_size(16), aligned(4), may_alias));
typedef float Octet __attribute__((vector_size(32), aligned(4), may_alias));

// Copies with whole vectors, the last of which overlaps the one before: no loop over a remainder.
inline __attribute__((always_inline)) void copy(const float* from, int64_t count, float* to) {
  if (count >= 8) {
    for (int64_t j = 0; j + 8 < count; j += 8) {
      *reinterpret_cast<Octet*>(to + j) = *reinterpret_cast<const Octet*>(from + j);
    }
    *reinterpret_cast<Octet*>(to + count - 8) = *reinterpret_cast<const Octet*>(from + count - 8);
  } else if (count >= 4) {
    *reinterpret_cast<Quad*>(to) = *reinterpret_cast<const Quad*>(from);
    *reinterpret_cast<Quad*>(to + count - 4) = *reinterpret_cast<const Quad*>(from + count - 4);
  } else {
    for (int64_t j = 0; j < count; ++j) to[j] = from[j];
  }
}

inline __attribute__((always_inline)) void zero(int64_t count, float* to) {
  for (int64_t j = 0; j < count; ++j) to[j] = 0.0f;
}

// One line: `columns` values of each image, of which [low, high) lie inside the image and begin at from[low * step].
PROFL_CLONES void fill_line(const float* from, int64_t step, int64_t images, int64_t image_floats, int64_t columns,
                            int64_t low, int64_t high, float* to) {
  for (int64_t image = 0; image < images; ++image, from += image_floats, to += columns) {
    zero(low, to);
    if (step == 1) {
      copy(from + low, high - low, to + low);
    } else {
      for (int64_t j = low; j < high; ++j) to[j] = from[j * step];
    }
    zero(columns - high, to + high);
  }
}

int64_t share(int64_t total, int64_t parts, int64_t index) { return total * index / parts; }

}  // namespace

int64_t Taps::lowest() const { return count == 0 ? 0 : *std::min_element(shift, shift + count); }

int64_t Taps::span() const { return count == 0 ? 0 : *std::max_element(shift, shift + count) - lowest() + 1; }

Cut::Cut(const Source& source, int64_t most) : batch_(source.batch), grid_h_(source.grid_h), grid_w_(source.grid_w) {
  const int64_t plane = grid_h_ * grid_w_;
  if (plane <= most) {
    images_ = ceil_div(batch_, most / plane);
    return;
  }
  images_ = batch_;
  if (grid_w_ <= most) {
    rows_ = ceil_div(grid_h_, most / grid_w_);
  } else {
    rows_ = grid_h_;
    columns_ = ceil_div(grid_w_, most);
  }
}

Piece Cut::piece(int64_t index) const {
  const int64_t column = index % columns_, row = index / columns_ % rows_, image = index / columns_ / rows_;
  Piece p;
  p.image = share(batch_, images_, image);
  p.images = share(batch_, images_, image + 1) - p.image;
  p.row = share(grid_h_, rows_, row);
  p.rows = share(grid_h_, rows_, row + 1) - p.row;
  p.column = share(grid_w_, columns_, column);
  p.columns = share(grid_w_, columns_, column + 1) - p.column;
  return p;
}

Piece Cut::largest() const {
  return {0, ceil_div(batch_, images_), 0, ceil_div(grid_h_, rows_), 0, ceil_div(grid_w_, columns_)};
}

bool Source::pointwise() const {
  return taps() == 1 && vertical.step == 1 && horizontal.step == 1 && vertical.shift[0] == 0 &&
         horizontal.shift[0] == 0 && grid_h == height && grid_w == width;
}

void Source::flatten() {
  grid_w = width = height * width;
  grid_h = height = 1;
}

Layout::Layout(const Source& source, const Piece& piece) : source_(source), piece_(piece) {
  const int64_t own = source.vertical.count * piece.rows;
  const int64_t together = piece.rows + source.vertical.span() - 1;
  shared_ = source.vertical.step == 1 && together < own;
  lines_ = shared_ ? together : own;
  lowest_ = source.vertical.lowest();
}

int64_t Layout::offset(int64_t vertical, int64_t horizontal) const {
  const int64_t line = shared_ ? source_.vertical.shift[vertical] - lowest_ : vertical * piece_.rows;
  return (horizontal * lines_ + line) * piece_.line();
}

int64_t Layout::input_row(int64_t line) const {
  const Taps& taps = source_.vertical;
  if (shared_) return piece_.row + lowest_ + line;
  return (piece_.row + line % piece_.rows) * taps.step + taps.shift[line / piece_.rows];
}

void Layout::fill(int64_t first, int64_t count, float* to) const {
  const Taps& taps = source_.horizontal;
  const int64_t columns = piece_.columns, width = source_.width;
  const int64_t plane = source_.height * width, image_floats = source_.channels_total * plane;
  for (int64_t channel = first; channel < first + count; ++channel) {
    const float* planes = source_.in + piece_.image * image_floats + channel * plane;
    for (int64_t tap = 0; tap < taps.count; ++tap) {
      const int64_t begin = piece_.column * taps.step + taps.shift[tap];
      // Columns [low, high) of the piece lie inside the image.
      const int64_t low = std::clamp<int64_t>(begin >= 0 ? 0 : ceil_div(-begin, taps.step), 0, columns);
      const int64_t high = std::clamp<int64_t>(begin >= width ? 0 : ceil_div(width - begin, taps.step), low, columns);
      for (int64_t line = 0; line < lines_; ++line) {
        const int64_t h = input_row(line);
        if (h < 0 || h >= source_.height) {
          zero(piece_.line(), to);
          to += piece_.line();
          continue;
        }
        fill_line(planes + h * width + begin, taps.step, piece_.images, image_floats, columns, low, high, to);
        to += piece_.line();
      }
    }
  }
}

bool supported(Context& context, const Tensor& weight) {
  if (height(weight) * width(weight) <= kMaxTaps) return true;
  context.fail(Error::NotSupported);
  return false;
}

}  // namespace profl
