// The weight gradient by Winograd's transforms: those of inputs and gradients are multiplied point by point and summed
// over all tiles of the batch before one transform back.
#include <algorithm>

#include "kernels/convolution/winograd/winograd.h"
#include "kernels/convolution/winograd/winograd_blocks.h"

namespace profl {
namespace {

constexpr int64_t kTaps = 9;

class WeightGradient {
 public:
  WeightGradient(const Source& source, int64_t channels, const float* gradient, int64_t outputs_total, int64_t outputs,
                 const WinogradKernels& kind, const GradientSink& sink)
      : kind_(kind),
        kernels_(tile_kernels()),
        channels_(channels),
        outputs_(outputs),
        sink_(sink),
        blocks_(kind, kernels_, channels, outputs, false),
        grid_(source) {
    grid_.grid_h = ceil_div(source.grid_h, kind.output_step);
    grid_.grid_w = ceil_div(source.grid_w, kind.output_step);
    input_tiling_ = {kind.input_step, kind.input_halo, source.vertical.lowest(), source.horizontal.lowest()};
    gradient_tiling_ = {kind.output_step, 0, 0, 0};
    inputs_ = Planes(source.in, source.batch, channels, source.channels_total, source.height, source.width);
    gradients_ = Planes(gradient, source.batch, outputs, outputs_total, source.grid_h, source.grid_w);
  }

  void run() {
    const Cut cut(grid_, blocks_.most_tiles(grid_.grid_w));
    const int64_t channel_tasks = ceil_div(channels_, blocks_.channels);
    blocks_.share(outputs_, channel_tasks, kernels_);
    parallel_for(channel_tasks * ceil_div(outputs_, blocks_.outputs), [&](int64_t task, float* workspace) {
      const int64_t c0 = task % channel_tasks * blocks_.channels, o0 = task / channel_tasks * blocks_.outputs;
      const int64_t channels = std::min(blocks_.channels, channels_ - c0);
      const int64_t outputs = std::min(blocks_.outputs, outputs_ - o0);
      float* inputs = workspace + kind_.weights * blocks_.weight_floats();
      float* gradients = inputs + kind_.inputs * blocks_.input_floats();
      float* scratch = gradients + kind_.sums * blocks_.sum_floats();
      for (int64_t index = 0; index < cut.count(); ++index) {
        const Piece piece = cut.piece(index);
        transform_planes(kernels_, inputs_, input_tiling_, piece, kind_.input, c0, channels, inputs, blocks_.channels,
                         blocks_.input_floats(), scratch);
        transform_planes(kernels_, gradients_, gradient_tiling_, piece, kind_.gradient, o0, outputs, gradients,
                         blocks_.outputs, blocks_.sum_floats(), scratch);
        multiply(piece.pixels(), channels, outputs, inputs, gradients, workspace, index > 0);
      }
      finish(c0, channels, o0, outputs, workspace, scratch);
    });
  }

 private:
  // weights[weight][output][channel] (+)= sum over tiles of gradients[sum][tile][output] * inputs[input][tile][channel]
  void multiply(int64_t tiles, int64_t channels, int64_t outputs, const float* inputs, const float* gradients,
                float* weights, bool add) const {
    const Panels panels(channels, kernels_.lanes);
    bool written[WinogradKernels::kMostPoints] = {};
    for (int64_t index = 0; index < kind_.product_count; ++index) {
      const WinogradProduct product = kind_.products[index];
      const float* input = inputs + product.input * blocks_.input_floats();
      const float* gradient = gradients + product.sum * blocks_.sum_floats();
      float* weight = weights + product.weight * blocks_.weight_floats();
      for (int64_t c = 0; c < panels.floats; c += panels.width) {
        const auto outer = kernels_.outer[panels.at(c) / kernels_.lanes - 1];
        // Blocks of output channels are whole tiles; what is behind the last is never read.
        for (int64_t o = 0; o < outputs; o += kernels_.rows) {
          outer(static_cast<int>(tiles), gradient + o, blocks_.outputs, input + c, blocks_.channels,
                weight + o * blocks_.channels + c, blocks_.channels, add || written[product.weight]);
        }
      }
      written[product.weight] = true;
    }
  }

  void finish(int64_t c0, int64_t channels, int64_t o0, int64_t outputs, const float* sums, float* scratch) const {
    const int64_t lanes = kernels_.lanes;
    int32_t places[kTaps];
    for (int64_t t = 0; t < kTaps; ++t) places[t] = static_cast<int32_t>(t * lanes);
    float* row = scratch + kTaps * lanes;
    for (int64_t o = 0; o < outputs; ++o) {
      for (int64_t c = 0; c < channels; c += lanes) {
        kind_.weight_gradient(sums + o * blocks_.channels + c, blocks_.weight_floats(), scratch);
        kernels_.turn_back(scratch, places, kTaps, row + c * kTaps, kTaps, kTaps <= lanes);
      }
      sink_.put(row, ((o0 + o) * channels_ + c0) * kTaps, channels * kTaps);
    }
  }

  const WinogradKernels& kind_;
  const TileKernels& kernels_;
  const int64_t channels_, outputs_;
  const GradientSink sink_;
  WinogradBlocks blocks_;
  Source grid_;
  Planes inputs_, gradients_;
  Tiling input_tiling_, gradient_tiling_;
};

}  // namespace

void winograd_weight_gradient(const Source& source, int64_t channels, const float* gradient, int64_t outputs_total,
                              int64_t outputs, const WinogradKernels& kind, const GradientSink& sink) {
  WeightGradient(source, channels, gradient, outputs_total, outputs, kind, sink).run();
}

}  // namespace profl
