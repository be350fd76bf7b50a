// The work of profl-train in a process of its own, where there is a limit at which the kernel may end it: what is left
// then says so, and removes the control group.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "runner/limits/own_group.h"

namespace profl {

// Runs `work` and returns its status, 1 after a kill. With `asked`, a limit, `work` gets the control group that it runs
// in, or null where none can be made. Without any limit it runs in this process.
int supervised(std::optional<uint64_t> asked, const std::function<int(const OwnGroup*)>& work);

}  // namespace profl
