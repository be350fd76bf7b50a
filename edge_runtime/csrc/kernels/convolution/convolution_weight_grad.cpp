// The weight gradient: weight_grad[o][k] = sum over pixels of grad[o][pixel] * patch[k][pixel], k = (channel, tap).
// The tile computes it transposed, rows of k against columns of o, because then the patches are the contiguous runs of
// convolution_lines.h and only the gradient is transposed.
#include <algorithm>

#include "kernels/common/kernels.h"
#include "kernels/convolution/depthwise/depthwise.h"
#include "kernels/convolution/depthwise/depthwise_vectors.h"
#include "kernels/convolution/problem/convolution_lines.h"
#include "kernels/convolution/winograd/winograd.h"
#include "kernels/optimizer/gradient_sink.h"
#include "kernels/tiles/gemm_tile.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

constexpr int64_t kMostPixels = 128;   // of one piece, whose products are added up one after the other
constexpr int64_t kMostColumns = 192;  // output channels of one task

// Writes `columns` output channels, `filled` of which exist, as [pixel of the piece][columns].
void turn_gradient(const Source& source, const Piece& piece, const float* gradient, int64_t channels_total,
                   int64_t filled, int64_t columns, float* to) {
  const int64_t plane = source.grid_h * source.grid_w;
  for (int64_t i = 0; i < piece.rows; ++i) {
    for (int64_t n = 0; n < piece.images; ++n, to += piece.columns * columns) {
      const float* row =
          gradient + (piece.image + n) * channels_total * plane + (piece.row + i) * source.grid_w + piece.column;
      int64_t o = 0;
      for (; o + 4 <= filled; o += 4) {
        int64_t j = 0;
        for (; j + 4 <= piece.columns; j += 4) turn_quad(row + o * plane + j, plane, columns, to + j * columns + o);
        for (; j < piece.columns; ++j) {
          for (int r = 0; r < 4; ++r) to[j * columns + o + r] = row[(o + r) * plane + j];
        }
      }
      for (; o < columns; ++o) {
        for (int64_t j = 0; j < piece.columns; ++j) to[j * columns + o] = o < filled ? row[o * plane + j] : 0.0f;
      }
    }
  }
}

struct Task {
  int64_t channel, channels, output, outputs;
};

class WeightGradient {
 public:
  WeightGradient(const Source& source, int64_t channels, const float* gradient, int64_t outputs_total, int64_t outputs,
                 const GradientSink& sink)
      : tiles_(tile_kernels()),
        source_(source),
        cut_(source, kMostPixels),
        channels_(channels),
        gradient_(gradient),
        outputs_total_(outputs_total),
        outputs_(outputs),
        sink_(sink) {
    const Piece largest = cut_.largest();
    const int64_t line_floats = Layout(source, largest).channel_floats(), taps = source.taps();
    const int64_t output_blocks = ceil_div(outputs, kMostColumns);
    output_block_ = round_up(ceil_div(outputs, output_blocks), tiles_.lanes);
    const int64_t left = kWorkspaceFloats - largest.pixels() * output_block_ - tiles_.rows * output_block_;
    const int64_t most = std::max<int64_t>(1, left / (taps * output_block_ + std::max(line_floats, 4 * taps)));
    int64_t channel_blocks = ceil_div(channels, most);
    while (channel_blocks * output_blocks % thread_count() != 0 && channel_blocks < channels) ++channel_blocks;
    channel_block_ = ceil_div(channels, channel_blocks);
  }

  void run() const {
    const int64_t channel_tasks = ceil_div(channels_, channel_block_), output_tasks = ceil_div(outputs_, output_block_);
    parallel_for(channel_tasks * output_tasks, [&](int64_t index, float* workspace) {
      const int64_t channel = index % channel_tasks * channel_block_, output = index / channel_tasks * output_block_;
      compute(
          {channel, std::min(channel_block_, channels_ - channel), output, std::min(output_block_, outputs_ - output)},
          workspace);
    });
  }

 private:
  void compute(const Task& task, float* workspace) const {
    const int64_t depth = task.channels * source_.taps();
    float* sums = workspace;  // [depth][output_block_]
    float* turned = sums + round_up(depth, tiles_.rows) * output_block_;
    for (int64_t index = 0; index < cut_.count(); ++index) {
      const Piece piece = cut_.piece(index);
      const Layout layout(source_, piece);
      float* lines = turned + piece.pixels() * output_block_;
      layout.fill(task.channel, task.channels, lines);
      const float* gradient = gradient_ + task.output * source_.grid_h * source_.grid_w;
      for (int64_t o = 0; o < task.outputs; o += width()) {
        turn_gradient(source_, piece, gradient + o * source_.grid_h * source_.grid_w, outputs_total_,
                      std::min(width(), task.outputs - o), panel(task, o), turned + o * piece.pixels());
      }
      multiply(task, piece, layout, lines, turned, sums, index > 0);
    }
    float* rows = turned;  // [4][depth]: the last piece is done
    for (int64_t o = 0; o < task.outputs; o += 4) {
      int64_t k = 0;
      for (; k + 4 <= depth; k += 4) turn_quad(sums + k * output_block_ + o, output_block_, depth, rows + k);
      for (; k < depth; ++k) {
        for (int64_t r = 0; r < 4; ++r) rows[r * depth + k] = sums[k * output_block_ + o + r];
      }
      for (int64_t r = 0; r < std::min<int64_t>(4, task.outputs - o); ++r) {
        sink_.put(rows + r * depth, ((task.output + o + r) * channels_ + task.channel) * source_.taps(), depth);
      }
    }
  }

  void multiply(const Task& task, const Piece& piece, const Layout& layout, const float* lines, const float* turned,
                float* sums, bool add) const {
    const int64_t taps = source_.taps(), depth = task.channels * taps, floats = layout.channel_floats();
    for (int64_t k = 0; k < depth; k += tiles_.rows) {
      const float* rows[kMaxTileRows];
      for (int64_t r = 0; r < tiles_.rows; ++r) {
        // Rows behind the last repeat it; their sums are never read.
        const int64_t at = std::min(k + r, depth - 1), tap = at % taps;
        rows[r] =
            lines + at / taps * floats + layout.offset(tap / source_.horizontal.count, tap % source_.horizontal.count);
      }
      for (int64_t o = 0; o < task.outputs; o += width()) {
        tiles_.streamed[panel(task, o) / tiles_.lanes - 1](static_cast<int>(piece.pixels()), rows,
                                                           turned + o * piece.pixels(), sums + k * output_block_ + o,
                                                           output_block_, add);
      }
    }
  }

  // Panels are of nearly equal width: two of two vectors are quicker than one of three and one of one.
  int64_t width() const {
    const int64_t vectors = output_block_ / tiles_.lanes;
    return ceil_div(vectors, ceil_div(vectors, kTileVectors)) * tiles_.lanes;
  }
  // Columns of the panel that begins at output `o` of the task.
  int64_t panel(const Task& task, int64_t o) const {
    return std::min(width(), round_up(task.outputs - o, tiles_.lanes));
  }

  const TileKernels& tiles_;
  const Source& source_;
  const Cut cut_;
  const int64_t channels_;
  const float* gradient_;
  const int64_t outputs_total_, outputs_;
  const GradientSink sink_;
  int64_t channel_block_, output_block_;
};

void weight_gradient(const Tensor& grad, const Tensor& x, const Tensor& weight, const Geometry& g,
                     const GradientSink& sink) {
  const int64_t channels = weight.size(1), outputs = weight.size(0) / g.groups;
  Source source{};
  source.channels_total = x.size(1);
  source.height = height(x);
  source.width = width(x);
  source.batch = x.size(0);
  source.grid_h = height(grad);
  source.grid_w = width(grad);
  source.vertical.step = g.stride_h;
  source.horizontal.step = g.stride_w;
  for (int64_t h = 0; h < height(weight); ++h) source.vertical.add(h * g.dilation_h - g.pad_h, h);
  for (int64_t w = 0; w < width(weight); ++w) source.horizontal.add(w * g.dilation_w - g.pad_w, w);
  source.in = x.const_data_ptr<float>();
  const float* gradient = grad.const_data_ptr<float>();
  const bool depthwise = g.groups > 1 && channels == 1;
  if (depthwise && outputs == 1 && depthwise_vectors_weight_gradient(source, gradient, g.groups, sink)) return;
  if (depthwise && depthwise_weight_gradient(source, gradient, g.groups, outputs, sink)) return;
  if (source.pointwise()) source.flatten();
  const WinogradKernels* winograd = winograd_for(source, channels, outputs);
  for (int64_t group = 0; group < g.groups; ++group) {
    const GradientSink part = sink.from(group * outputs * channels * source.taps());
    if (winograd != nullptr) {
      winograd_weight_gradient(source, channels, gradient, grad.size(1), outputs, *winograd, part);
    } else {
      WeightGradient(source, channels, gradient, grad.size(1), outputs, part).run();
    }
    source.in += channels * source.height * source.width;
    gradient += outputs * source.grid_h * source.grid_w;
  }
}

}  // namespace

void conv2d_weight_grad(Context& context, Stack stack) {
  const Arguments a(stack);
  const Tensor& out = a.tensor(6);
  if (!supported(context, out)) return;
  weight_gradient(a.tensor(0), a.tensor(1), out, Geometry(a, 2), GradientSink(a.write(6)));
}

void conv2d_weight_grad_sgd(Context& context, Stack stack) {
  const Arguments a(stack);
  const Tensor& weight = a.tensor(6);
  if (!supported(context, weight)) return;
  weight_gradient(a.tensor(0), a.tensor(1), weight, Geometry(a, 2), GradientSink(a, 6));
}

}  // namespace profl
