// 3x3 convolutions with stride 1 or 2 by Winograd's minimal filtering: tiles of inputs and the kernels are transformed,
// their products summed over channels, point by point, as matrix products, and the sums transformed into tiles of
// outputs. With stride 1 a 4x4 tile takes 36 products instead of 144, with stride 2 a 2x2 tile 25 instead of 36. All of
// it goes block by block through one thread's workspace.
//
// Errors are a few times those of direct sums. A NaN or infinity reaches every output that sees it, and possibly others
// of its tiles.
#pragma once

#include <cstdint>

#include "kernels/convolution/problem/convolution_problem.h"
#include "kernels/optimizer/gradient_sink.h"
#include "kernels/tiles/gemm_tile.h"

namespace profl {

// The transforms that are quickest for a gradient of these shapes; null if direct sums are.
const WinogradKernels* winograd_for(const Source& source, int64_t channels, int64_t outputs);

// The same for a forward convolution. What it puts out decides on which side of an activation's kink a value lies, and
// one value on the other side changes a gradient by more than all rounding: only the transforms that are as exact as
// direct sums are taken, those of 2x2 tiles.
const WinogradKernels* winograd_forward_for(const Source& source, int64_t channels, int64_t outputs);

// The same for the input gradient of a 3x3 kernel with stride 2 and padding 1 as one problem: the grid is that of the
// inputs, `source` the gradient, its taps those of the kernel backward.
const WinogradKernels* winograd_for_transposed(const Source& source, int64_t channels, int64_t outputs);

// Solves one group of a problem for which one of those is not null.
void solve_winograd(const Problem& problem, const WinogradKernels& kind);

// The weight gradient of one group.
void winograd_weight_gradient(const Source& source, int64_t channels, const float* gradient, int64_t outputs_total,
                              int64_t outputs, const WinogradKernels& kind, const GradientSink& sink);

}  // namespace profl
