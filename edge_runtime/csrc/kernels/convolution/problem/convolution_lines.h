// The patches of a convolution without im2col. For a piece of the output (some images, rows and columns) every input
// channel is laid out as lines, once per horizontal tap:
//
//   lines[channel][horizontal tap][line][image of the piece][column of the piece]
//
// shifted by the tap and with zeros outside the image. With stride 1 a vertical tap is then a step of whole lines, so
// that the patch values of any tap for all pixels of the piece, in the order (row, image, column), are one contiguous
// run: `offset(tap)` floats behind the channel's begin. A 3x3 kernel costs 3 copies instead of 9, and images narrower
// than a vector still fill vectors.
#pragma once

#include <cstdint>

#include "kernels/common/stack.h"
#include "kernels/common/turn.h"

namespace profl {

constexpr int64_t kMaxTaps = 256;  // up to 16x16 kernels; one channel's lines of a piece then take half of a workspace

struct Geometry {
  int64_t stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups;
  // Reads stride, padding, dilation and groups from the stack, beginning at `at`.
  Geometry(const Arguments& a, size_t at)
      : stride_h(a.pair(at, 0)),
        stride_w(a.pair(at, 1)),
        pad_h(a.pair(at + 1, 0)),
        pad_w(a.pair(at + 1, 1)),
        dilation_h(a.pair(at + 2, 0)),
        dilation_w(a.pair(at + 2, 1)),
        groups(a.integer(at + 3)) {}
};

// One direction of the kernel: tap t reads input position `output * step + shift[t]`.
struct Taps {
  int64_t step = 1;
  int64_t count = 0;
  int64_t shift[kMaxTaps];
  int64_t index[kMaxTaps];  // position in the kernel

  void add(int64_t shifted, int64_t position) {
    shift[count] = shifted;
    index[count++] = position;
  }
  int64_t lowest() const;
  int64_t span() const;
};

// Where patches are read from: `in` points at the first channel of the group.
struct Source {
  const float* in;
  int64_t channels_total, height, width;
  int64_t batch, grid_h, grid_w;
  Taps vertical, horizontal;
  int64_t taps() const { return vertical.count * horizontal.count; }
  // Whether every output reads the pixel in its own place and no other.
  bool pointwise() const;
  // Makes planes single rows.
  void flatten();
};

struct Piece {
  int64_t image, images, row, rows, column, columns;
  int64_t line() const { return images * columns; }
  int64_t pixels() const { return rows * line(); }
};

// The output cut into pieces of at most `most` pixels and nearly equal size. Depends on shapes only, never on the
// number of threads, so that sums are built the same way on every device.
class Cut {
 public:
  Cut(const Source& source, int64_t most);
  int64_t count() const { return images_ * rows_ * columns_; }
  Piece piece(int64_t index) const;
  Piece largest() const;

 private:
  int64_t batch_, grid_h_, grid_w_;
  int64_t images_ = 1, rows_ = 1, columns_ = 1;
};

// Where the taps of one piece lie inside a channel.
class Layout {
 public:
  Layout(const Source& source, const Piece& piece);
  int64_t channel_floats() const { return source_.horizontal.count * lines_ * piece_.line(); }
  int64_t offset(int64_t vertical, int64_t horizontal) const;
  // Writes channels [first, first + count) one behind the other.
  void fill(int64_t first, int64_t count, float* to) const;

 private:
  int64_t input_row(int64_t line) const;

  const Source& source_;
  const Piece& piece_;
  bool shared_;  // vertical taps read the same lines; else each has lines of its own
  int64_t lowest_, lines_;
};

// Fails the context for kernels of more than kMaxTaps.
bool supported(Context& context, const Tensor& weight);

}  // namespace profl
