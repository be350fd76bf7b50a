// A convolution as an implicit matrix product over the lines of convolution_lines.h: of any kernel, stride and
// dilation.
#pragma once

#include "kernels/convolution/problem/convolution_problem.h"

namespace profl {

// Solves one group of a problem.
void solve_product(const Problem& p);

}  // namespace profl
