// The weight gradient of depthwise convolutions on vectors of channels.
#include <algorithm>

#include "kernels/convolution/depthwise/depthwise_strips.h"
#include "kernels/convolution/depthwise/depthwise_vectors.h"
#include "kernels/tiles/gemm_tile.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

constexpr int64_t kShortSum = 256;  // products added up in float

// Sums of products for every tap and channel: short ones in float, which are added up in double.
class TapSums {
 public:
  TapSums(const TileKernels& tiles, int64_t taps) : tiles_(tiles), taps_(taps) {}

  void add(const float* gradient, const float* tile, const int32_t* places, const int32_t* offsets, int64_t count) {
    for (int64_t first = 0; first < count; first += kShortSum) {
      const int64_t here = std::min(kShortSum, count - first);
      if (pending_ + here > kShortSum) flush();
      for (int64_t t = 0; t < taps_; t += kMaxLaneDots) {
        const int64_t dots = std::min<int64_t>(kMaxLaneDots, taps_ - t);
        tiles_.lane_dots[dots - 1](gradient + first * tiles_.lanes, tile, places + first, offsets + t, here,
                                   short_ + t * tiles_.lanes);
      }
      pending_ += here;
    }
  }

  // to[channel][tap]
  void put(int64_t channels, float* to) {
    flush();
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t t = 0; t < taps_; ++t) *to++ = static_cast<float>(long_[t * tiles_.lanes + c]);
    }
  }

 private:
  void flush() {
    for (int64_t i = 0; i < taps_ * tiles_.lanes; ++i) {
      long_[i] += static_cast<double>(short_[i]);
      short_[i] = 0.0f;
    }
    pending_ = 0;
  }

  const TileKernels& tiles_;
  const int64_t taps_;
  int64_t pending_ = 0;
  float short_[kMaxVectorTaps * kMaxLanes] = {};
  double long_[kMaxVectorTaps * kMaxLanes] = {};
};

}  // namespace

bool depthwise_vectors_weight_gradient(const Source& source, const float* gradient, int64_t groups,
                                       const GradientSink& sink) {
  const TileKernels& tiles = tile_kernels();
  const int64_t lanes = tiles.lanes, taps = source.taps(), plane = source.grid_h * source.grid_w;
  if (taps > kMaxVectorTaps || 2 * groups < lanes) return false;
  Problem p{};
  p.source = source;
  const Strips strips(&p, 1, lanes);
  const int64_t most = strips.rows() * source.grid_w;
  if (strips.floats() + most * lanes + strips.most_inputs() + most > kWorkspaceFloats) return false;
  parallel_for(ceil_div(groups, lanes), [&](int64_t task, float* workspace) {
    const LaneBlock block(task, groups, lanes);
    float *tile = workspace, *turned = tile + strips.floats();
    int32_t* input_places = reinterpret_cast<int32_t*>(turned + most * lanes);
    int32_t* places = input_places + strips.most_inputs();
    int32_t offsets[kMaxVectorTaps], *offset = offsets;
    for (int64_t v = 0; v < source.vertical.count; ++v) {
      for (int64_t h = 0; h < source.horizontal.count; ++h) {
        *offset++ = static_cast<int32_t>(strips.offset(source.vertical.shift[v], source.horizontal.shift[h]));
      }
    }
    for (int64_t j = 0; j < most; ++j) {
      places[j] = static_cast<int32_t>(strips.from(j / source.grid_w, j % source.grid_w));
    }
    TapSums sums(tiles, taps);
    for (int64_t strip = 0; strip < strips.count(); ++strip) {
      const int64_t row = strips.first(strip), rows = std::min(strips.rows(), source.grid_h - row);
      std::fill_n(tile, strips.floats(), 0.0f);
      const Strips::Inputs inputs = strips.inputs(strip, input_places);
      for (int64_t n = 0; n < source.batch; ++n) {
        const LanePlanes in(source.in, source.batch, source.channels_total, source.height * source.width, n, block,
                            inputs.row * source.width);
        tiles.turn(in.begin, in.stride, block.channels, inputs.rows * source.width, in.readable, input_places, tile);
        const LanePlanes out(gradient, source.batch, groups, plane, n, block, row * source.grid_w);
        tiles.turn(out.begin, out.stride, block.channels, rows * source.grid_w, out.readable, nullptr, turned);
        sums.add(turned, tile, places, offsets, rows * source.grid_w);
      }
    }
    float result[kMaxVectorTaps * kMaxLanes];
    sums.put(block.channels, result);
    sink.put(result, block.channel * taps, block.channels * taps);
  });
  return true;
}

}  // namespace profl
