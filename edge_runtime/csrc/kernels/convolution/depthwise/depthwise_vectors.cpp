#include "kernels/convolution/depthwise/depthwise_vectors.h"

#include <algorithm>
#include <optional>

#include "kernels/activation/activation_runs.h"
#include "kernels/tiles/gemm_tile.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

constexpr int64_t kWorkspaceFloats = static_cast<int64_t>(kWorkspaceBytesPerThread / sizeof(float));
constexpr int64_t kStripPixels = 512;   // of one plane; a strip is at least one row of each phase
constexpr int64_t kTaskPixels = 2048;   // images of small planes share a task, and with it the turned weights
constexpr int64_t kShortSum = 256;      // products added up in float
constexpr int64_t kMaxVectorTaps = 49;  // up to 7x7 kernels

// Some channels: as many as a vector has lanes, or fewer in the last block.
struct Block {
  int64_t channel, channels;
  Block(int64_t index, int64_t groups, int64_t lanes)
      : channel(index * lanes), channels(std::min(lanes, groups - index * lanes)) {}
};

// Rows of whole planes with stride between the channels, and how many floats may be read of the last channel's.
struct Planes {
  const float* begin;
  int64_t stride, readable;
  Planes(const float* tensor, int64_t batch, int64_t channels_total, int64_t plane, int64_t image, const Block& block,
         int64_t first)
      : stride(plane) {
    const int64_t at = (image * channels_total + block.channel) * plane + first;
    begin = tensor + at;
    readable = batch * channels_total * plane - (at + (block.channels - 1) * plane);
  }
};

bool any_taps(const Problem* phases, int64_t count) {
  return std::any_of(phases, phases + count, [](const Problem& p) { return p.source.taps() > 0; });
}

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

// The outputs of a strip: whole rows of a plane, whose sums lie one vector behind the other.
struct Outputs {
  int64_t row, rows, pixels;
  Outputs(const Problem& p, const Strips& strips, int64_t strip) : row(strips.first(strip) * p.step_h) {
    rows = std::min(p.out_h - row, strips.rows() * p.step_h);
    pixels = rows * p.out_w;
  }
};

// The sums of one phase in one strip: its weights and where they are read from and written to.
class PhaseSums {
 public:
  PhaseSums(const Problem& p, const Strips& strips, int64_t strip, const float* turned, int64_t lanes, float* weights,
            int32_t* places)
      : taps_(static_cast<int>(p.source.taps())), weights_(weights), from_(places) {
    const Taps &vertical = p.source.vertical, &horizontal = p.source.horizontal;
    int32_t* offset = offsets_;
    for (int64_t v = 0; v < vertical.count; ++v) {
      for (int64_t h = 0; h < horizontal.count; ++h, weights += lanes) {
        *offset++ = static_cast<int32_t>(strips.offset(vertical.shift[v], horizontal.shift[h]));
        std::copy_n(turned + (vertical.index[v] * p.kernel_w + horizontal.index[h]) * lanes, lanes, weights);
      }
    }
    const int64_t rows = std::min(strips.rows(), p.source.grid_h - strips.first(strip));
    count_ = std::max<int64_t>(0, rows) * p.source.grid_w;
    to_ = from_ + count_;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < p.source.grid_w; ++j) {
        const int64_t at = i * p.source.grid_w + j;
        places[at] = static_cast<int32_t>(strips.from(i, j));
        places[count_ + at] =
            static_cast<int32_t>(((i * p.step_h + p.first_h) * p.out_w + j * p.step_w + p.first_w) * lanes);
      }
    }
  }
  float* weights_end(int64_t lanes) const { return weights_ + taps_ * lanes; }
  int32_t* places_end() const { return from_ + 2 * count_; }

  void run(const TileKernels& tiles, const float* tile, float* sums) const {
    tiles.lane_sums(taps_, weights_, offsets_, tile, from_, count_, sums, to_);
  }

 private:
  const int taps_;
  float* weights_;
  int32_t *from_, *to_;
  int64_t count_;
  int32_t offsets_[kMaxVectorTaps];
};

// Writes the sums of a strip to the outputs of their channels.
void put_back(const TileKernels& tiles, const float* sums, const int32_t* places, int64_t pixels, const Block& block,
              int64_t plane, float* spare, float* to) {
  if (block.channels == tiles.lanes) {
    tiles.turn_back(sums, places, pixels, to, plane, false);
    return;
  }
  tiles.turn_back(sums, places, pixels, spare, pixels, false);
  for (int64_t c = 0; c < block.channels; ++c) std::copy_n(spare + c * pixels, pixels, to + c * plane);
}

void finish(const Problem& p, const TileKernels& tiles, const Block& block, int64_t pixels, float* sums) {
  if (p.scale == nullptr && p.shift == nullptr && p.activation == Activation::none) return;
  float scale[kMaxLanes], shift[kMaxLanes];
  for (int64_t c = 0; c < tiles.lanes; ++c) {
    const bool there = c < block.channels;
    scale[c] = there && p.scale != nullptr ? p.scale[block.channel + c] : 1.0f;
    shift[c] = there && p.shift != nullptr ? p.shift[block.channel + c] : 0.0f;
  }
  tiles.lane_affine(scale, shift, sums, pixels);
  if (p.activation != Activation::none) activate_run(p.activation, sums, 0.0f, sums, pixels * tiles.lanes);
}

}  // namespace

bool solve_depthwise_vectors(const Problem* phases, int64_t count, int64_t groups) {
  const TileKernels& tiles = tile_kernels();
  const Problem& p = *phases;
  const int64_t lanes = tiles.lanes, kernel = p.group_stride, plane = p.out_h * p.out_w;
  const bool every_output = count == std::min(p.step_h, p.out_h) * std::min(p.step_w, p.out_w);
  if (count > kMaxPhases || !every_output || p.channels != 1 || p.rows != 1 || p.residual != nullptr ||
      kernel > kMaxVectorTaps || 2 * groups < lanes || !any_taps(phases, count)) {
    return false;
  }
  const Strips strips(phases, count, lanes);
  const int64_t most_outputs = strips.rows() * p.step_h * p.out_w;
  const int64_t place_floats = strips.most_inputs() + most_outputs + 2 * count * most_outputs;
  if (strips.floats() + 2 * most_outputs * lanes + 2 * kernel * lanes + place_floats > kWorkspaceFloats) return false;
  const int64_t together = std::clamp<int64_t>(kTaskPixels / most_outputs, 1, p.source.batch);
  const int64_t image_tasks = ceil_div(p.source.batch, together), blocks = ceil_div(groups, lanes);
  parallel_for(blocks * strips.count() * image_tasks, [&](int64_t task, float* workspace) {
    const int64_t image = task % image_tasks * together, strip = task / image_tasks % strips.count();
    const Block block(task / image_tasks / strips.count(), groups, lanes);
    const Outputs outputs(p, strips, strip);
    float *tile = workspace, *sums = tile + strips.floats(), *spare = sums + most_outputs * lanes;
    float *turned = spare + most_outputs * lanes, *weights = turned + kernel * lanes;
    int32_t* input_places = reinterpret_cast<int32_t*>(weights + kernel * lanes);
    int32_t* output_places = input_places + strips.most_inputs();
    int32_t* places = output_places + most_outputs;
    tiles.turn(p.weight + block.channel * kernel, kernel, block.channels, kernel, kernel, nullptr, turned);
    std::fill_n(tile, strips.floats(), 0.0f);
    const Strips::Inputs inputs = strips.inputs(strip, input_places);
    for (int64_t j = 0; j < outputs.pixels; ++j) output_places[j] = static_cast<int32_t>(j * lanes);
    std::optional<PhaseSums> parts[kMaxPhases];
    for (int64_t k = 0; k < count; ++k) {
      parts[k].emplace(phases[k], strips, strip, turned, lanes, weights, places);
      weights = parts[k]->weights_end(lanes);
      places = parts[k]->places_end();
    }
    for (int64_t n = image; n < std::min(image + together, p.source.batch); ++n) {
      const Planes in(p.source.in, p.source.batch, p.source.channels_total, p.source.height * p.source.width, n, block,
                      inputs.row * p.source.width);
      tiles.turn(in.begin, in.stride, block.channels, inputs.rows * p.source.width, in.readable, input_places, tile);
      for (int64_t k = 0; k < count; ++k) parts[k]->run(tiles, tile, sums);
      finish(p, tiles, block, outputs.pixels, sums);
      put_back(tiles, sums, output_places, outputs.pixels, block, plane, spare,
               p.out + (n * p.out_channels_total + block.channel) * plane + outputs.row * p.out_w);
    }
  });
  return true;
}

namespace {

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
    const Block block(task, groups, lanes);
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
        const Planes in(source.in, source.batch, source.channels_total, source.height * source.width, n, block,
                        inputs.row * source.width);
        tiles.turn(in.begin, in.stride, block.channels, inputs.rows * source.width, in.readable, input_places, tile);
        const Planes out(gradient, source.batch, groups, plane, n, block, row * source.grid_w);
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
