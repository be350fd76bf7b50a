// Convolutions with one channel in and out a group, computed on vectors of channels: a strip of the planes of as many
// channels as a vector has lanes is turned into [row][column][channel], zeros around it. An output is then a sum of
// whole vectors whatever the size of the planes and whatever the stride, where runs along a row of 4x4 images fill a
// quarter of a vector and those of stride 2 must be picked apart.
#pragma once

#include <cstdint>

#include "kernels/convolution/problem/convolution_problem.h"
#include "kernels/optimizer/gradient_sink.h"

namespace profl {

constexpr int64_t kMaxPhases = 4;  // of outputs that different taps reach: strides up to 2x2

// Solves all groups of problems that differ in their taps and in which outputs are theirs; together they write every
// output. False, with nothing done, if this is no way to solve them: then planes are (depthwise.h).
bool solve_depthwise_vectors(const Problem* phases, int64_t count, int64_t groups);

// The weight gradient of all groups; `source.in` and `gradient` point at the first. The same return value.
bool depthwise_vectors_weight_gradient(const Source& source, const float* gradient, int64_t groups,
                                       const GradientSink& sink);

}  // namespace profl
