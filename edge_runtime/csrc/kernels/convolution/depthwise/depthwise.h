// Convolutions with one input channel a group: no matrix product, each output plane is a weighted sum of shifted runs
// of its own input plane.
#pragma once

#include <cstdint>

#include "kernels/convolution/problem/convolution_problem.h"
#include "kernels/optimizer/gradient_sink.h"

namespace profl {

// Solves all groups of a problem with one input channel a group; false, with nothing done, if no piece of it fits the
// workspace.
bool solve_depthwise(const Problem& problem, int64_t groups);

// The weight gradient of all groups; `source.in` and `gradient` point at the first. The same return value.
bool depthwise_weight_gradient(const Source& source, const float* gradient, int64_t groups, int64_t outputs,
                               const GradientSink& sink);

}  // namespace profl
