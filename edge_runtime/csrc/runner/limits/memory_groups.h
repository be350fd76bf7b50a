// The memory control groups that this process lives in, as edge_runtime/device/limits/control_groups.py finds them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace profl {

// Of one hierarchy: version 1 or 2, the group's own folder and those of its parents, up to the mount.
struct MemoryGroup {
  bool second;
  std::vector<std::string> folders;

  std::string kind() const { return second ? "cgroup-v2" : "cgroup-v1"; }
};

// Those of version 1 before those of version 2.
std::vector<MemoryGroup> memory_groups();

// The content of a small file of the system, empty where it cannot be read.
std::string system_text(const std::string& path);
bool is_folder(const std::string& path);
// Where the kernel counts kills at the limit of a group.
std::string events_of(const std::string& folder, bool second);

struct GroupLimit {
  uint64_t bytes;
  std::string kind, events;

  // For the words of a refusal or of a kill.
  std::string name() const { return "the memory limit of this process's control group (" + kind + ")"; }
};

// The lowest one of the groups and all their parents; none where they set none.
std::optional<GroupLimit> group_limit();

}  // namespace profl
