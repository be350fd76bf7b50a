// Convolution and its input gradient: each becomes one problem or several, which the quickest way solves.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/kernels.h"
#include "kernels/convolution/convolution_product.h"
#include "kernels/convolution/depthwise/depthwise.h"
#include "kernels/convolution/depthwise/depthwise_vectors.h"
#include "kernels/convolution/problem/convolution_problem.h"
#include "kernels/convolution/winograd/winograd.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

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
      solve_product(p);
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
