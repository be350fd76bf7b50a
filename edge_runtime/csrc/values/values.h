// What kernels and the engine call a tensor, an argument list and an error: ExecuTorch's types, or, in a build that
// does without ExecuTorch (PROFL_OWN_ENGINE), our own with the members that are used here.
#pragma once

#ifdef PROFL_OWN_ENGINE
#include "values/own_values.h"
#else
#include "values/executorch_values.h"
#endif
