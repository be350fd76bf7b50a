// How depthwise convolutions on vectors of channels cut their planes: channels into blocks of as many as a vector has
// lanes, rows into strips.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/convolution/depthwise/depthwise_vectors.h"
#include "threads/thread_pool.h"

namespace profl {

constexpr int64_t kStripPixels = 512;   // of one plane; a strip is at least one row of each phase
constexpr int64_t kMaxVectorTaps = 49;  // up to 7x7 kernels

// Some channels: as many as a vector has lanes, or fewer in the last block.
struct LaneBlock {
  int64_t channel, channels;
  LaneBlock(int64_t index, int64_t groups, int64_t lanes)
      : channel(index * lanes), channels(std::min(lanes, groups - index * lanes)) {}
};

// Rows of whole planes with stride between the channels, and how many floats may be read of the last channel's.
struct LanePlanes {
  const float* begin;
  int64_t stride, readable;
  LanePlanes(const float* tensor, int64_t batch, int64_t channels_total, int64_t plane, int64_t image,
             const LaneBlock& block, int64_t first)
      : stride(plane) {
    const int64_t at = (image * channels_total + block.channel) * plane + first;
    begin = tensor + at;
    readable = batch * channels_total * plane - (at + (block.channels - 1) * plane);
  }
};

// Where the strips of a problem lie, at least one phase of which has a tap. Row i of the grid reads input rows from i *
// step + top on; a strip is `rows` neighbouring rows of the grid of every phase.
class Strips {
 public:
  Strips(const Problem* phases, int64_t count, int64_t lanes) : source_(phases->source), lanes_(lanes) {
    top_ = left_ = INT64_MAX;
    int64_t bottom = INT64_MIN, right = INT64_MIN;
    for (const Problem* p = phases; p < phases + count; ++p) {
      const Taps &vertical = p->source.vertical, &horizontal = p->source.horizontal;
      grid_h_ = std::max(grid_h_, p->source.grid_h);
      grid_w_ = std::max(grid_w_, p->source.grid_w);
      if (p->source.taps() == 0) continue;
      top_ = std::min(top_, vertical.lowest());
      left_ = std::min(left_, horizontal.lowest());
      bottom = std::max(bottom, vertical.lowest() + vertical.span());
      right = std::max(right, horizontal.lowest() + horizontal.span());
    }
    reach_ = bottom - top_;
    pitch_ = (grid_w_ - 1) * source_.horizontal.step + right - left_;
    rows_ = std::clamp<int64_t>(kStripPixels / (count * grid_w_), 1, grid_h_);
    rows_ = ceil_div(grid_h_, ceil_div(grid_h_, rows_));
  }

  int64_t count() const { return ceil_div(grid_h_, rows_); }
  int64_t rows() const { return rows_; }
  int64_t first(int64_t strip) const { return strip * rows_; }
  int64_t place(int64_t row, int64_t column) const { return (row * pitch_ + column) * lanes_; }
  int64_t lines() const { return (rows_ - 1) * source_.vertical.step + reach_; }
  // The tile and behind it one vector for what no tap reads.
  int64_t floats() const { return (lines() * pitch_ + 1) * lanes_; }
  int64_t most_inputs() const { return std::min(lines(), source_.height) * source_.width; }

  // The offset of a tap from the place of an output's first input.
  int64_t offset(int64_t vertical_shift, int64_t horizontal_shift) const {
    return place(vertical_shift - top_, horizontal_shift - left_);
  }
  int64_t from(int64_t row, int64_t column) const {
    return place(row * source_.vertical.step, column * source_.horizontal.step);
  }

  // The input rows that a strip reads, and for every pixel of them its place in the tile.
  struct Inputs {
    int64_t row, rows;
  };
  Inputs inputs(int64_t strip, int32_t* places) const {
    const int64_t begin = first(strip) * source_.vertical.step + top_;
    const int64_t low = std::clamp<int64_t>(begin, 0, source_.height);
    const int64_t high = std::clamp<int64_t>(begin + lines(), low, source_.height);
    for (int64_t row = low; row < high; ++row) {
      for (int64_t column = 0; column < source_.width; ++column) {
        const int64_t at = column - left_;
        *places++ = static_cast<int32_t>(at >= 0 && at < pitch_ ? place(row - begin, at) : lines() * pitch_ * lanes_);
      }
    }
    return {low, high - low};
  }

 private:
  const Source& source_;
  const int64_t lanes_;
  int64_t grid_h_ = 0, grid_w_ = 0, top_, left_, reach_, pitch_, rows_;
};

}  // namespace profl
