// Train one block: batches in, one execution after the other, an update out. As edge_runtime/device/worker/training.py.
#pragma once

#include "runner/options.h"

namespace profl {

// Returns the exit status; throws Failure. Output and checkpoint appear whole or not at all.
int train(Options options);

}  // namespace profl
