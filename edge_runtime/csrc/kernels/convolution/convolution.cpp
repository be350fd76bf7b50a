// Convolution and its input gradient as implicit matrix multiplication over the lines of convolution_lines.h.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/kernels.h"
#include "kernels/convolution/depthwise/depthwise.h"
#include "kernels/convolution/depthwise/depthwise_vectors.h"
#include "kernels/convolution/problem/convolution_lines.h"
#include "kernels/convolution/problem/convolution_problem.h"
#include "kernels/convolution/winograd/winograd.h"
#include "kernels/tiles/gemm_tile.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

constexpr int64_t kWorkspaceFloats = static_cast<int64_t>(kWorkspaceBytesPerThread / sizeof(float));
constexpr int64_t kSlack = 64;        // a last vector may read this far behind the lines
constexpr int64_t kMostPixels = 512;  // of one piece
constexpr int64_t kDepth = 144;       // patch values of one packed block, which are added up one after the other
constexpr int64_t kMostLineFloats = 100 << 10;

// to[k * tile_rows + r] = from[r * row_stride + k], for a whole tile of rows.
void pack_tile(const float* from, int64_t row_stride, int64_t count, int64_t tile_rows, float* to) {
  for (int64_t r = 0; r < tile_rows; r += 4) {
    int64_t k = 0;
    for (; k + 4 <= count; k += 4) turn_quad(from + r * row_stride + k, row_stride, tile_rows, to + k * tile_rows + r);
    for (; k < count; ++k) {
      for (int64_t i = r; i < r + 4; ++i) to[k * tile_rows + i] = from[i * row_stride + k];
    }
  }
}

// Packs the weights of rows [m0, m0 + rows) and the given channels as [tile][k][tile_rows], zeros in missing rows.
void pack_weights(const Problem& p, int64_t m0, int64_t rows, int64_t first_channel, int64_t channels,
                  int64_t tile_rows, float* to) {
  const Taps &vertical = p.source.vertical, &horizontal = p.source.horizontal;
  int64_t at[kMaxTaps];
  int64_t taps = 0;
  bool in_order = true;  // all taps of the kernel, as they lie in memory
  for (int64_t v = 0; v < vertical.count; ++v) {
    for (int64_t h = 0; h < horizontal.count; ++h) {
      at[taps] = vertical.index[v] * p.kernel_w + horizontal.index[h];
      in_order = in_order && at[taps] == taps;
      ++taps;
    }
  }
  const int64_t tile = channels * taps * tile_rows;
  const float* first = p.weight + m0 * p.row_stride + first_channel * p.channel_stride;
  // A run of channels without gaps is one run of patch values.
  const bool joined = in_order && p.channel_stride == taps;
  const int64_t runs = joined ? 1 : channels, run = joined ? channels * taps : taps;
  for (int64_t c = 0; c < runs; ++c, first += p.channel_stride) {
    for (int64_t m = 0; m < rows; m += tile_rows) {
      float* place = to + m / tile_rows * tile + c * taps * tile_rows;
      const float* from = first + m * p.row_stride;
      const int64_t here = std::min(tile_rows, rows - m);
      if (in_order && here == tile_rows) {
        pack_tile(from, p.row_stride, run, tile_rows, place);
        continue;
      }
      for (int64_t k = 0; k < run; ++k) {
        const int64_t source = in_order ? k : at[k];
        for (int64_t r = 0; r < tile_rows; ++r) {
          place[k * tile_rows + r] = r < here ? from[r * p.row_stride + source] : 0.0f;
        }
      }
    }
  }
}

void store(const Problem& p, const Piece& piece, int64_t m0, int64_t rows, const float* sums, int64_t stride) {
  for (int64_t m = 0; m < rows; ++m, sums += stride) {
    const float* sum = sums;
    for (int64_t i = 0; i < piece.rows; ++i) {
      for (int64_t n = 0; n < piece.images; ++n, sum += piece.columns) {
        p.put(sum, m0 + m, piece.image + n, piece.row + i, piece.column, piece.columns);
      }
    }
  }
}

// How a problem is cut to fit one thread's buffer: lines | packed weights | sums.
struct Blocks {
  int64_t channels, rows, row_blocks;

  Blocks(const Problem& p, const Cut& cut, const TileKernels& tiles) {
    const Piece largest = cut.largest();
    const int64_t line_floats = Layout(p.source, largest).channel_floats(), taps = p.source.taps();
    channels = std::clamp<int64_t>(std::min(kDepth / taps, kMostLineFloats / line_floats), 1, p.channels);
    channels = ceil_div(p.channels, ceil_div(p.channels, channels));  // short sums are of nearly equal length
    const int64_t left = kWorkspaceFloats - kSlack - channels * line_floats;
    const int64_t most = left / (round_up(largest.pixels(), tiles.lanes) + channels * taps) / tiles.rows * tiles.rows;
    row_blocks = ceil_div(p.rows, most);
    // Few pieces: cut rows further, until every thread has the same share.
    const int64_t threads = thread_count(), finest = ceil_div(p.rows, tiles.rows);
    if (cut.count() < 4 * threads) {
      while (cut.count() * row_blocks % threads != 0 && row_blocks < finest) ++row_blocks;
    }
    rows = round_up(ceil_div(p.rows, row_blocks), tiles.rows);
    row_blocks = ceil_div(p.rows, rows);
  }
};

void multiply(const TileKernels& tiles, int64_t depth, int64_t rows, int64_t pixels, const float* weights,
              const float* lines, const int32_t* offsets, float* sums, int64_t stride, bool add) {
  const int64_t vectors = ceil_div(pixels, tiles.lanes);
  for (int64_t v = 0; v < vectors; v += kTileVectors) {
    const int64_t here = std::min<int64_t>(kTileVectors, vectors - v);
    for (int64_t m = 0; m < rows; m += tiles.rows) {
      tiles.gathered[here - 1](static_cast<int>(depth), weights + m * depth, lines + v * tiles.lanes, offsets,
                               sums + m * stride + v * tiles.lanes, stride, add);
    }
  }
}

void solve_one(const Problem& p) {
  const TileKernels& tiles = tile_kernels();
  const Cut cut(p.source, kMostPixels);
  const Blocks blocks(p, cut, tiles);
  const int64_t taps = p.source.taps();
  parallel_for(cut.count() * blocks.row_blocks, [&](int64_t task, float* workspace) {
    const Piece piece = cut.piece(task / blocks.row_blocks);
    const int64_t m0 = task % blocks.row_blocks * blocks.rows, rows = std::min(blocks.rows, p.rows - m0);
    const Layout layout(p.source, piece);
    const int64_t channel_floats = layout.channel_floats(), stride = round_up(piece.pixels(), tiles.lanes);
    float* weights = workspace;
    float* sums = weights + blocks.rows * blocks.channels * taps;
    float* lines = sums + blocks.rows * stride;
    int32_t offsets[std::max(kDepth, kMaxTaps)];
    int64_t k = 0;
    for (int64_t c = 0; c < blocks.channels; ++c) {
      for (int64_t v = 0; v < p.source.vertical.count; ++v) {
        for (int64_t h = 0; h < p.source.horizontal.count; ++h) {
          offsets[k++] = static_cast<int32_t>(c * channel_floats + layout.offset(v, h));
        }
      }
    }
    for (int64_t c = 0; c < p.channels; c += blocks.channels) {
      const int64_t channels = std::min(blocks.channels, p.channels - c);
      pack_weights(p, m0, rows, c, channels, tiles.rows, weights);
      layout.fill(c, channels, lines);
      multiply(tiles, channels * taps, rows, piece.pixels(), weights, lines, offsets, sums, stride, c > 0);
    }
    store(p, piece, m0, rows, sums, stride);
  });
}

void solve(Problem p, int64_t groups) {
  if (groups > 1 && p.channels == 1 && (solve_depthwise_vectors(&p, 1, groups) || solve_depthwise(p, groups))) return;
  p.flatten();
  const bool in_place = p.step_h == 1 && p.step_w == 1;
  const auto choose = p.forward ? winograd_forward_for : winograd_for;
  const WinogradKernels* winograd = in_place ? choose(p.source, p.channels, p.rows) : nullptr;
  for (int64_t group = 0; group < groups; ++group, p.next_group()) {
    if (winograd != nullptr) {
      solve_winograd(p, *winograd);
    } else {
      solve_one(p);
    }
  }
}

// The input gradient of a 3x3 kernel with stride 2 in one; false, with nothing done, if another way is quicker.
bool solve_transposed(Problem p, const Geometry& g) {
  const bool fits = g.stride_h == 2 && g.stride_w == 2 && g.pad_h == 1 && g.pad_w == 1 && g.dilation_h == 1 &&
                    g.dilation_w == 1 && p.kernel_w == 3 && p.row_stride == 9;
  p.step_h = p.step_w = 1;
  Source& source = p.source;
  source.grid_h = p.out_h;
  source.grid_w = p.out_w;
  const WinogradKernels* winograd = fits ? winograd_for_transposed(source, p.channels, p.rows) : nullptr;
  if (winograd == nullptr) return false;
  for (int64_t tap = 0; tap < 3; ++tap) {
    source.vertical.add(2 - tap, tap);
    source.horizontal.add(2 - tap, tap);
  }
  for (int64_t group = 0; group < g.groups; ++group, p.next_group()) solve_winograd(p, *winograd);
  return true;
}

void forward(const Tensor& x, const Tensor& weight, const Geometry& g, const float* scale, const float* shift,
             const float* residual, Activation activation, const Tensor& out) {
  Problem p{};
  p.forward = true;
  p.kernel_w = width(weight);
  p.channels = weight.size(1);
  p.channel_stride = height(weight) * p.kernel_w;
  p.row_stride = p.channels * p.channel_stride;
  p.out_channels_total = out.size(1);
  p.out_h = height(out);
  p.out_w = width(out);
  p.rows = out.size(1) / g.groups;
  p.group_stride = p.rows * p.row_stride;
  p.activation = activation;
  Source& source = p.source;
  source.channels_total = x.size(1);
  source.height = height(x);
  source.width = width(x);
  source.batch = x.size(0);
  source.grid_h = p.out_h;
  source.grid_w = p.out_w;
  source.vertical.step = g.stride_h;
  source.horizontal.step = g.stride_w;
  for (int64_t h = 0; h < height(weight); ++h) source.vertical.add(h * g.dilation_h - g.pad_h, h);
  for (int64_t w = 0; w < p.kernel_w; ++w) source.horizontal.add(w * g.dilation_w - g.pad_w, w);
  source.in = x.const_data_ptr<float>();
  p.weight = weight.const_data_ptr<float>();
  p.out = out.mutable_data_ptr<float>();
  p.residual = residual;
  p.scale = scale;
  p.shift = shift;
  solve(p, g.groups);
}

// The taps that reach output positions congruent to `phase` modulo the stride: position y = o * stride - pad + k *
// dilation of the input meets output o = (y + pad - k * dilation) / stride where that divides.
void taps_of_phase(int64_t phase, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation, Taps* taps) {
  taps->count = 0;
  for (int64_t k = 0; k < kernel; ++k) {
    const int64_t from = phase + pad - k * dilation;
    if (from % stride == 0) taps->add(from / stride, k);
  }
}

// Makes `p` the problem of one phase.
void choose_phase(int64_t first_h, int64_t first_w, int64_t kernel_h, const Geometry& g, Problem* p) {
  Source& source = p->source;
  p->first_h = first_h;
  p->first_w = first_w;
  source.grid_h = ceil_div(p->out_h - first_h, g.stride_h);
  source.grid_w = ceil_div(p->out_w - first_w, g.stride_w);
  taps_of_phase(first_h, kernel_h, g.stride_h, g.pad_h, g.dilation_h, &source.vertical);
  taps_of_phase(first_w, p->kernel_w, g.stride_w, g.pad_w, g.dilation_w, &source.horizontal);
}

// The input gradient of a depthwise convolution with all phases at once; false, with nothing done, if another way it
// is.
bool solve_depthwise_phases(const Problem& p, const Geometry& g, int64_t kernel_h) {
  const int64_t down = std::min(g.stride_h, p.out_h), across = std::min(g.stride_w, p.out_w);
  if (g.groups == 1 || down * across > kMaxPhases) return false;
  std::vector<Problem> phases(down * across, p);
  for (int64_t i = 0; i < down * across; ++i) choose_phase(i / across, i % across, kernel_h, g, &phases[i]);
  return solve_depthwise_vectors(phases.data(), down * across, g.groups);
}

// Output positions that no tap reaches (a 1x1 kernel with stride 2): their gradient is the residual alone.
void copy_residual(const Problem& p) {
  parallel_for(p.source.batch * p.out_channels_total, [&](int64_t task, float*) {
    const int64_t plane = task * p.out_h;
    for (int64_t i = 0; i < p.source.grid_h; ++i) {
      for (int64_t j = 0; j < p.source.grid_w; ++j) {
        const int64_t at = (plane + i * p.step_h + p.first_h) * p.out_w + j * p.step_w + p.first_w;
        p.out[at] = p.residual == nullptr ? 0.0f : p.residual[at];
      }
    }
  });
}

}  // namespace

void conv2d(Context& context, Stack stack) {
  const Arguments a(stack);
  if (!supported(context, a.tensor(1))) return;
  forward(a.tensor(0), a.tensor(1), Geometry(a, 3), nullptr, a.read(2), nullptr, Activation::none, a.tensor(7));
}

void conv2d_frozen(Context& context, Stack stack) {
  const Arguments a(stack);
  if (!supported(context, a.tensor(1))) return;
  const int64_t channels = a.size(1, 0);
  constexpr int64_t kMaxChannels = 8192;
  if (channels > kMaxChannels) {
    context.fail(Error::NotSupported);
    return;
  }
  static thread_local float scale[kMaxChannels], shift[kMaxChannels];
  const float *bias = a.read(2), *gamma = a.read(3), *beta = a.read(4), *mean = a.read(5), *variance = a.read(6);
  for (int64_t c = 0; c < channels; ++c) {
    scale[c] = 1.0f;
    shift[c] = bias == nullptr ? 0.0f : bias[c];
    if (variance != nullptr) {
      const double s = (gamma == nullptr ? 1.0 : gamma[c]) / std::sqrt(static_cast<double>(variance[c]) + a.number(7));
      shift[c] = static_cast<float>((shift[c] - static_cast<double>(mean[c])) * s + (beta == nullptr ? 0.0 : beta[c]));
      scale[c] = static_cast<float>(s);
    }
  }
  forward(a.tensor(0), a.tensor(1), Geometry(a, 10), scale, shift, a.read(8), static_cast<Activation>(a.integer(9)),
          a.tensor(14));
}

// The transposed convolution, cut into one stride-1 problem per phase (output position modulo the stride), so that no
// multiplication meets an inserted zero.
void conv2d_input_grad(Context& context, Stack stack) {
  const Arguments a(stack);
  const Tensor &grad = a.tensor(0), &weight = a.tensor(1), &out = a.tensor(7);
  if (!supported(context, weight)) return;
  const Geometry g(a, 3);
  const float* residual = a.read(2);
  const int64_t kernel_h = height(weight), inputs = weight.size(1), outputs = weight.size(0) / g.groups;
  Problem p{};
  p.kernel_w = width(weight);
  p.channels = outputs;
  p.row_stride = kernel_h * p.kernel_w;
  p.channel_stride = inputs * p.row_stride;
  p.group_stride = outputs * p.channel_stride;
  p.out_channels_total = out.size(1);
  p.out_h = height(out);
  p.out_w = width(out);
  p.rows = inputs;
  p.step_h = g.stride_h;
  p.step_w = g.stride_w;
  Source& source = p.source;
  source.channels_total = grad.size(1);
  source.height = height(grad);
  source.width = width(grad);
  source.batch = out.size(0);
  source.vertical.step = source.horizontal.step = 1;
  source.in = grad.const_data_ptr<float>();
  p.weight = weight.const_data_ptr<float>();
  p.out = out.mutable_data_ptr<float>();
  p.residual = residual;
  if (solve_transposed(p, g) || solve_depthwise_phases(p, g, kernel_h)) return;
  for (int64_t first_h = 0; first_h < std::min(g.stride_h, p.out_h); ++first_h) {
    for (int64_t first_w = 0; first_w < std::min(g.stride_w, p.out_w); ++first_w) {
      choose_phase(first_h, first_w, kernel_h, g, &p);
      if (source.taps() > 0) {
        solve(p, g.groups);
      } else {
        copy_residual(p);
      }
    }
  }
}

}  // namespace profl
