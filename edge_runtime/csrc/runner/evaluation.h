// Accuracy and loss of the model up to a block. As edge_runtime/device/worker/evaluation.py.
#pragma once

#include "runner/limits/own_group.h"
#include "runner/options.h"

namespace profl {

// Returns the exit status; throws Failure. `group`: the control group of its own that this process is in, or null.
int evaluate(const Options& options, const OwnGroup* group);

}  // namespace profl
