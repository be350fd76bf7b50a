#include "runner/limits/memory_groups.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace profl {
namespace {

constexpr uint64_t kUnlimited = uint64_t{1} << 62;  // version 1 writes no limit as a number near 2^63
constexpr char kMount[] = "/sys/fs/cgroup";
constexpr char kHierarchical[] = "hierarchical_memory_limit ";

struct Mount {
  bool second;
  std::string controllers, at, group;
};

bool lists(const std::string& names, const std::string& name) {
  return ("," + names + ",").find("," + name + ",") != std::string::npos;
}

// Of /proc/self/mountinfo, in which blanks are octal numbers.
std::string plain(const std::string& field) {
  std::string text;
  for (size_t at = 0; at < field.size(); ++at) {
    if (field[at] == '\\' && at + 3 < field.size()) {
      text += static_cast<char>(std::strtol(field.substr(at + 1, 3).c_str(), nullptr, 8));
      at += 3;
    } else {
      text += field[at];
    }
  }
  return text;
}

// What lies between these letters, without what is empty.
std::vector<std::string> pieces(const std::string& text, char between) {
  std::vector<std::string> found;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(between, at), text.size());
    if (end > at) found.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return found;
}

std::vector<std::string> words_of(const std::string& line) { return pieces(line, ' '); }

std::vector<std::string> lines_of(const std::string& path) { return pieces(system_text(path), '\n'); }

std::vector<Mount> mounts() {
  std::vector<Mount> found;
  for (const std::string& line : lines_of("/proc/self/mountinfo")) {
    const size_t middle = line.find(" - ");
    if (middle == std::string::npos) continue;
    const std::vector<std::string> before = words_of(line.substr(0, middle)),
                                   behind = words_of(line.substr(middle + 3));
    if (before.size() < 5 || behind.empty() || (behind[0] != "cgroup" && behind[0] != "cgroup2")) continue;
    found.push_back({behind[0] == "cgroup2", behind.back(), plain(before[4]), plain(before[3])});
  }
  return found;
}

// In a container the path of /proc/self/cgroup may be the host's, or outside of what is mounted: the mount itself is
// then the container's own group.
std::vector<std::string> upwards(const Mount& mount, const std::string& group) {
  const std::string base = mount.group == "/" ? "" : mount.group;
  const bool inside = group.compare(0, base.size(), base) == 0 && group.find("..") == std::string::npos;
  std::string path = inside ? group.substr(base.size()) : "";
  while (!path.empty() && path.back() == '/') path.pop_back();
  if (!is_folder(mount.at + path)) path.clear();
  std::vector<std::string> folders;
  for (;;) {
    folders.push_back(mount.at + path);
    if (path.empty()) return folders;
    path.resize(path.rfind('/'));
  }
}

// Those of one version, where `group` is the path that /proc/self/cgroup has.
void add(std::vector<MemoryGroup>& found, const std::vector<Mount>& all, bool second, const std::string& group) {
  const size_t before = found.size();
  for (const Mount& mount : all) {
    if (mount.second != second || (!second && !lists(mount.controllers, "memory"))) continue;
    found.push_back({second, upwards(mount, group)});
  }
  if (found.size() > before) return;
  found.push_back({second, upwards({second, "", second ? kMount : std::string(kMount) + "/memory", "/"}, group)});
}

void lower(std::optional<GroupLimit>& limit, const MemoryGroup& group, const std::string& text) {
  if (text.empty() || text[0] < '0' || text[0] > '9') return;  // no such file, or `max`
  const uint64_t bytes = std::strtoull(text.c_str(), nullptr, 10);
  if (bytes >= kUnlimited || (limit && bytes >= limit->bytes)) return;
  limit = GroupLimit{bytes, group.kind(), events_of(group.folders[0], group.second)};
}

}  // namespace

std::string system_text(const std::string& path) {
  std::string text;
  std::FILE* const file = std::fopen(path.c_str(), "re");
  if (file == nullptr) return text;
  char piece[1024];
  for (size_t count; (count = std::fread(piece, 1, sizeof(piece), file)) > 0;) text.append(piece, count);
  std::fclose(file);
  return text;
}

bool is_folder(const std::string& path) {
  struct stat about = {};
  return stat(path.c_str(), &about) == 0 && S_ISDIR(about.st_mode);
}

std::string events_of(const std::string& folder, bool second) {
  return folder + (second ? "/memory.events" : "/memory.oom_control");
}

std::vector<MemoryGroup> memory_groups() {
  const std::vector<Mount> all = mounts();
  std::vector<MemoryGroup> found;
  for (const bool second : {false, true}) {
    for (const std::string& line : lines_of("/proc/self/cgroup")) {
      const size_t first = line.find(':'), next = line.find(':', first + 1);
      if (first == std::string::npos || next == std::string::npos) continue;
      const std::string controllers = line.substr(first + 1, next - first - 1);
      if (second ? controllers.empty() : lists(controllers, "memory")) add(found, all, second, line.substr(next + 1));
    }
  }
  return found;
}

std::optional<GroupLimit> group_limit() {
  std::optional<GroupLimit> limit;
  for (const MemoryGroup& group : memory_groups()) {
    for (const std::string& folder : group.folders) {
      if (group.second) {
        // Above `memory.high` a process is slowed down until it hardly moves: for a training that is a limit as well.
        lower(limit, group, system_text(folder + "/memory.max"));
        lower(limit, group, system_text(folder + "/memory.high"));
      } else {
        lower(limit, group, system_text(folder + "/memory.limit_in_bytes"));
      }
    }
    if (group.second) continue;
    // Parents above a container's own root cannot be seen; the kernel tells the lowest of all.
    for (const std::string& line : lines_of(group.folders[0] + "/memory.stat")) {
      if (line.compare(0, sizeof(kHierarchical) - 1, kHierarchical) == 0) {
        lower(limit, group, line.substr(sizeof(kHierarchical) - 1));
      }
    }
  }
  return limit;
}

}  // namespace profl
