#include "runner/limits/own_group.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <vector>

#include "runner/limits/memory_groups.h"

namespace profl {
namespace {

constexpr char kName[] = "profl-edge-";

bool write_text(const std::string& path, const std::string& text) {
  const int file = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (file < 0) return false;
  const bool written = write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  close(file);
  return written;
}

// Removes groups whose maker was killed before it could; groups in use refuse to be removed.
void remove_abandoned(const std::string& parent) {
  DIR* const folder = opendir(parent.c_str());
  if (folder == nullptr) return;
  while (const dirent* const entry = readdir(folder)) {
    const std::string name = entry->d_name;
    if (name.compare(0, sizeof(kName) - 1, kName) != 0) continue;
    const pid_t maker = static_cast<pid_t>(std::strtol(name.c_str() + sizeof(kName) - 1, nullptr, 10));
    if (maker > 0 && kill(maker, 0) != 0 && errno == ESRCH) rmdir((parent + "/" + name).c_str());
  }
  closedir(folder);
}

// Where a group may be made: its folder, and the kind.
std::vector<std::pair<std::string, std::string>> parents() {
  std::vector<std::pair<std::string, std::string>> found;
  for (const MemoryGroup& group : memory_groups()) {
    if (!group.second) {
      if (access((group.folders.back() + "/memory.limit_in_bytes").c_str(), F_OK) != 0) continue;
      return {{group.folders.front(), group.kind()}, {group.folders.back(), group.kind()}};
    }
    // A group that holds processes cannot hand its memory controller down: the parents may.
    for (const std::string& folder : group.folders) {
      const std::string controllers = " " + system_text(folder + "/cgroup.subtree_control");
      if (controllers.find(" memory") != std::string::npos) found.push_back({folder, group.kind()});
    }
  }
  return found;
}

}  // namespace

std::optional<OwnGroup> OwnGroup::make() {
  for (const auto& [parent, kind] : parents()) {
    remove_abandoned(parent);
    const OwnGroup group{parent + "/" + kName + std::to_string(getpid()) + "-0", kind};
    if (mkdir(group.folder.c_str(), 0755) != 0) continue;
    // A limit of all memory shows whether one may be set at all.
    if (access((group.folder + "/cgroup.procs").c_str(), W_OK) == 0 && group.limit(uint64_t{1} << 52)) return group;
    rmdir(group.folder.c_str());
  }
  return std::nullopt;
}

std::string OwnGroup::events() const { return events_of(folder, kind == "cgroup-v2"); }

bool OwnGroup::limit(uint64_t bytes) const {
  const std::string size = std::to_string(bytes);
  if (kind == "cgroup-v2") {
    if (!write_text(folder + "/memory.max", size)) return false;
    write_text(folder + "/memory.swap.max", "0");
    return true;
  }
  if (!write_text(folder + "/memory.limit_in_bytes", size)) return false;
  write_text(folder + "/memory.memsw.limit_in_bytes", size);
  return true;
}

}  // namespace profl
