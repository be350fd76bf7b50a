#include "kernels/convolution/depthwise/depthwise_vectors.h"

#include <algorithm>
#include <optional>

#include "kernels/activation/activation_runs.h"
#include "kernels/convolution/depthwise/depthwise_strips.h"
#include "kernels/tiles/gemm_tile.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

constexpr int64_t kTaskPixels = 2048;  // images of small planes share a task, and with it the turned weights

bool any_taps(const Problem* phases, int64_t count) {
  return std::any_of(phases, phases + count, [](const Problem& p) { return p.source.taps() > 0; });
}

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
void put_back(const TileKernels& tiles, const float* sums, const int32_t* places, int64_t pixels,
              const LaneBlock& block, int64_t plane, float* spare, float* to) {
  if (block.channels == tiles.lanes) {
    tiles.turn_back(sums, places, pixels, to, plane, false);
    return;
  }
  tiles.turn_back(sums, places, pixels, spare, pixels, false);
  for (int64_t c = 0; c < block.channels; ++c) std::copy_n(spare + c * pixels, pixels, to + c * plane);
}

void finish(const Problem& p, const TileKernels& tiles, const LaneBlock& block, int64_t pixels, float* sums) {
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
    const LaneBlock block(task / image_tasks / strips.count(), groups, lanes);
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
      const LanePlanes in(p.source.in, p.source.batch, p.source.channels_total, p.source.height * p.source.width, n,
                          block, inputs.row * p.source.width);
      tiles.turn(in.begin, in.stride, block.channels, inputs.rows * p.source.width, in.readable, input_places, tile);
      for (int64_t k = 0; k < count; ++k) parts[k]->run(tiles, tile, sums);
      finish(p, tiles, block, outputs.pixels, sums);
      put_back(tiles, sums, output_places, outputs.pixels, block, plane, spare,
               p.out + (n * p.out_channels_total + block.channel) * plane + outputs.row * p.out_w);
    }
  });
  return true;
}

}  // namespace profl
