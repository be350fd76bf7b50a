// Accuracy and loss of the model up to a block. As edge_runtime/device/worker/evaluation.py.
#pragma once

#include "runner/options.h"

namespace profl {

// Returns the exit status; throws Failure.
int evaluate(const Options& options);

}  // namespace profl
