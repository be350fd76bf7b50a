// The kernels of all operators in the table, each a function with its operator's name. The order of each stack is in
// docs/operators.md.
#pragma once

#include "kernels/common/stack.h"
#include "operators/operator_list.h"

namespace profl {

#define PROFL_DECLARE(name) void name(Context& context, Stack stack);
PROFL_OPERATORS(PROFL_DECLARE)
#undef PROFL_DECLARE

}  // namespace profl
