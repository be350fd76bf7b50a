#include "kernels/convolution/winograd/winograd.h"

#include <algorithm>

#include "kernels/convolution/winograd/winograd_blocks.h"

namespace profl {
namespace {

constexpr int64_t kTaps = 9;
class Convolution {
 public:
  Convolution(const Problem& p, const WinogradKernels& kind)
      : p_(p),
        kind_(kind),
        kernels_(tile_kernels()),
        single_(p.channels <= kMostChannels),
        // With one block of channels, sums and inputs never live while a window is turned.
        blocks_(kind, kernels_, p.channels, p.rows, single_ && p.channels > kFewerChannels) {
    grid_ = p.source;
    grid_.grid_h = ceil_div(p.source.grid_h, kind.output_step);
    grid_.grid_w = ceil_div(p.source.grid_w, kind.output_step);
    inputs_ = {kind.input_step, kind.input_halo, p.source.vertical.lowest(), p.source.horizontal.lowest()};
    outputs_ = {kind.output_step, 0, 0, 0};
    planes_ = Planes(p.source.in, p.source.batch, p.channels, p.source.channels_total, p.source.height, p.source.width);
  }

  void run() {
    const Cut cut(grid_, blocks_.most_tiles(grid_.grid_w));
    const int64_t count = cut.count();
    blocks_.share(p_.rows, count, kernels_);
    const int64_t row_tasks = ceil_div(p_.rows, blocks_.outputs);
    // Pieces of one task share the transformed weights where those are of one block.
    const int64_t piece_tasks =
        single_ ? std::min<int64_t>(count, thread_count() == 1 ? 1 : 4 * thread_count()) : count;
    parallel_for(piece_tasks * row_tasks, [&](int64_t task, float* workspace) {
      const int64_t m0 = task % row_tasks * blocks_.outputs, rows = std::min(blocks_.outputs, p_.rows - m0);
      const int64_t first = task / row_tasks * count / piece_tasks, last = (task / row_tasks + 1) * count / piece_tasks;
      const Buffers buffers(kind_, blocks_, workspace);
      if (single_) transform_weights(m0, rows, 0, p_.channels, buffers);
      for (int64_t index = first; index < last; ++index) solve(cut.piece(index), m0, rows, buffers);
    });
  }

 private:
  struct Buffers {
    float *weights, *inputs, *sums, *scratch, *finished;
    Buffers(const WinogradKernels& kind, const WinogradBlocks& b, float* workspace)
        : weights(workspace),
          inputs(weights + kind.weights * b.weight_floats()),
          sums(inputs + kind.inputs * b.input_floats()),
          scratch(b.scratch_floats == 0 ? sums : sums + kind.sums * b.sum_floats()),
          finished(b.scratch_floats == 0 ? inputs : scratch) {}
  };

  void solve(const Piece& piece, int64_t m0, int64_t rows, const Buffers& buffers) const {
    for (int64_t c = 0; c < p_.channels; c += blocks_.channels) {
      const int64_t channels = std::min(blocks_.channels, p_.channels - c);
      if (!single_) transform_weights(m0, rows, c, channels, buffers);
      transform_planes(kernels_, planes_, inputs_, piece, kind_.input, c, channels, buffers.inputs, blocks_.channels,
                       blocks_.input_floats(), buffers.scratch);
      multiply(piece.pixels(), channels, rows, buffers, c > 0);
    }
    finish(piece, m0, rows, buffers);
  }

  // weights[point][panel][channel][output of the panel]
  void transform_weights(int64_t m0, int64_t rows, int64_t c0, int64_t channels, const Buffers& buffers) const {
    const int64_t lanes = kernels_.lanes;
    const Taps &vertical = p_.source.vertical, &horizontal = p_.source.horizontal;
    const bool up = vertical.shift[0] < vertical.shift[2], right = horizontal.shift[0] < horizontal.shift[2];
    const int64_t row = (up ? 3 : -3) * lanes, column = (right ? 1 : -1) * lanes;
    const int64_t origin = ((up ? 0 : 6) + (right ? 0 : 2)) * lanes;
    const float* end = p_.weight + (p_.rows - 1) * p_.row_stride + (p_.channels - 1) * p_.channel_stride + kTaps;
    const bool joined = p_.channel_stride == kTaps;
    const int64_t runs = joined ? 1 : channels, run = joined ? channels * kTaps : kTaps;
    const Panels panels(rows, lanes);
    for (int64_t m = 0; m < rows; m += lanes) {
      const int64_t lines = std::min(lanes, rows - m);
      const float* from = p_.weight + (m0 + m) * p_.row_stride + c0 * p_.channel_stride;
      for (int64_t c = 0; c < runs; ++c, from += p_.channel_stride) {
        const int64_t readable = end - (from + (lines - 1) * p_.row_stride);
        kernels_.turn(from, p_.row_stride, lines, run, std::min(readable, round_up(run, lanes)), nullptr,
                      buffers.scratch + c * kTaps * lanes);
      }
      const int64_t panel = m / panels.width * panels.width;
      float* to = buffers.weights + panel * channels + m - panel;
      for (int64_t c = 0; c < channels; ++c) {
        kind_.weight(buffers.scratch + c * kTaps * lanes + origin, row, column, to + c * panels.at(panel),
                     blocks_.weight_floats());
      }
    }
  }

  // sums[sum][tile][output] (+)= sum over channels of inputs[input][tile][channel] * weights[weight]
  void multiply(int64_t count, int64_t channels, int64_t rows, const Buffers& buffers, bool add) const {
    const Panels panels(rows, kernels_.lanes);
    bool written[WinogradKernels::kMostPoints] = {};
    for (int64_t index = 0; index < kind_.product_count; ++index) {
      const WinogradProduct product = kind_.products[index];
      const float* inputs = buffers.inputs + product.input * blocks_.input_floats();
      const float* weights = buffers.weights + product.weight * blocks_.weight_floats();
      float* sums = buffers.sums + product.sum * blocks_.sum_floats();
      for (int64_t o = 0; o < panels.floats; o += panels.width) {
        const auto streamed = kernels_.streamed[panels.at(o) / kernels_.lanes - 1];
        for (int64_t t = 0; t < count; t += kernels_.rows) {
          const float* lines[kMaxTileRows];
          // Rows behind the last tile repeat it; their sums are never read.
          for (int64_t r = 0; r < kernels_.rows; ++r) lines[r] = inputs + std::min(t + r, count - 1) * blocks_.channels;
          streamed(static_cast<int>(channels), lines, weights + o * channels, sums + t * blocks_.outputs + o,
                   blocks_.outputs, add || written[product.sum]);
        }
      }
      written[product.sum] = true;
    }
  }

  // Transforms the sums into outputs and writes them to their places.
  void finish(const Piece& piece, int64_t m0, int64_t rows, const Buffers& buffers) const {
    const int64_t lanes = kernels_.lanes, strip = outputs_.strip_rows(piece);
    const int64_t row_floats = piece.columns * kind_.output_step * lanes;
    for (int64_t row = 0; row < piece.rows; row += strip) {
      const int64_t here = std::min(strip, piece.rows - row);
      const Window window = outputs_.window(piece, row, here, p_.source.grid_h, p_.source.grid_w, lanes);
      float* lines = buffers.finished + here * kind_.output_step * row_floats;
      for (int64_t n = 0; n < piece.images; ++n) {
        const float* sums = buffers.sums + (n * piece.rows + row) * piece.columns * blocks_.outputs;
        for (int64_t m = 0; m < rows; m += lanes) {
          for (int64_t r = 0; r < here; ++r) {
            kind_.output(sums + r * piece.columns * blocks_.outputs + m, blocks_.outputs, blocks_.sum_floats(),
                         piece.columns, buffers.finished + r * kind_.output_step * row_floats, row_floats);
          }
          for (int64_t run = 0; run < window.runs(); ++run) {
            const int64_t pixels = window.run_pixels();
            window.turn_back(kernels_, buffers.finished, run, lines, pixels);
            for (int64_t r = 0; r < std::min(lanes, rows - m); ++r) {
              p_.put(lines + r * pixels, m0 + m + r, piece.image + n, window.row(run), window.column(), pixels);
            }
          }
        }
      }
    }
  }

  const Problem& p_;
  const WinogradKernels& kind_;
  const TileKernels& kernels_;
  const bool single_;
  WinogradBlocks blocks_;
  Source grid_;
  Planes planes_;
  Tiling inputs_, outputs_;
};

constexpr int64_t kFewestChannels = 16;  // with fewer, transforms cost more than they save

// Three neighbouring taps, in either order.
bool three_neighbours(const Taps& taps) {
  return taps.count == 3 && taps.span() == 3 && taps.shift[1] - taps.lowest() == 1;
}

}  // namespace

const WinogradKernels* winograd_for(const Source& source, int64_t channels, int64_t outputs) {
  if (!three_neighbours(source.vertical) || !three_neighbours(source.horizontal)) return nullptr;
  if (std::min(channels, outputs) < kFewestChannels) return nullptr;
  const WinogradKinds& kinds = tile_kernels().winograd;
  const int64_t smaller = std::min(source.grid_h, source.grid_w), step = source.vertical.step;
  if (smaller < 2 || source.horizontal.step != step || step > 2) return nullptr;
  if (step == 2) return &kinds.strided;
  return smaller == 2 ? &kinds.two : &kinds.four;
}

const WinogradKernels* winograd_forward_for(const Source& source, int64_t channels, int64_t outputs) {
  const WinogradKinds& kinds = tile_kernels().winograd;
  const WinogradKernels* quickest = winograd_for(source, channels, outputs);
  return quickest == &kinds.four ? &kinds.two : quickest;
}

const WinogradKernels* winograd_for_transposed(const Source& source, int64_t channels, int64_t outputs) {
  if (std::min(channels, outputs) < kFewestChannels || std::min(source.grid_h, source.grid_w) < 2) return nullptr;
  return &tile_kernels().winograd.transposed;
}

void solve_winograd(const Problem& problem, const WinogradKernels& kind) { Convolution(problem, kind).run(); }

}  // namespace profl
