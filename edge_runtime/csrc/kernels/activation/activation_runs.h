// Activations over runs of floats, for kernels that apply any of them: one copy of each loop in memory.
#pragma once

#include "kernels/activation/activation.h"

namespace profl {

// y[i] = activation of x[i]; y may be x.
void activate_run(Activation kind, const float* x, float parameter, float* y, int64_t count);

// to_x[i] = the gradient of x[i], given that of its activation; to_x may be either of them.
void activation_gradient_run(Activation kind, const float* gradient, const float* x, float parameter, float* to_x,
                             int64_t count);

}  // namespace profl
