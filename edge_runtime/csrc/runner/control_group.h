// The memory limit of the control groups that this process lives in, such as that of a container.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace profl {

struct GroupLimit {
  uint64_t bytes;
  std::string kind;  // cgroup-v1, cgroup-v2
};

// The lowest one of the groups and their parents, where control groups are mounted as usual; none where they set none.
std::optional<GroupLimit> group_limit();

}  // namespace profl
