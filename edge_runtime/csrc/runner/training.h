// Train one block: batches in, one execution after the other, an update out. As edge_runtime/device/worker/training.py.
#pragma once

#include "runner/limits/own_group.h"
#include "runner/options.h"

namespace profl {

// Returns the exit status; throws Failure. Output and checkpoint appear whole or not at all. `group`: the control group
// of its own that this process is in, or null.
int train(Options options, const OwnGroup* group);

}  // namespace profl
