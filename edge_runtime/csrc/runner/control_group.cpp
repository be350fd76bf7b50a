#include "runner/control_group.h"

#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>

namespace profl {
namespace {

constexpr char kMount[] = "/sys/fs/cgroup", kMemoryMount[] = "/sys/fs/cgroup/memory";
constexpr uint64_t kUnlimited = uint64_t{1} << 62;  // version 1 writes no limit as a number near 2^63

std::string content(const std::string& path) {
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

void lower(std::optional<GroupLimit>& limit, const std::string& file, const char* kind) {
  const std::string text = content(file);
  if (text.empty() || text[0] < '0' || text[0] > '9') return;  // no such file, or `max`
  const uint64_t bytes = std::strtoull(text.c_str(), nullptr, 10);
  if (bytes < kUnlimited && (!limit || bytes < limit->bytes)) limit = GroupLimit{bytes, kind};
}

// The limits of a group and of all its parents. In a container its path may be the host's: the mount itself is its own.
void lower_upwards(std::optional<GroupLimit>& limit, const std::string& mount, std::string group, bool second) {
  if (group.find("..") != std::string::npos || !is_folder(mount + group)) group.clear();
  for (;;) {
    const std::string folder = mount + group + "/";
    if (second) {
      lower(limit, folder + "memory.max", "cgroup-v2");
      lower(limit, folder + "memory.high", "cgroup-v2");
    } else {
      lower(limit, folder + "memory.limit_in_bytes", "cgroup-v1");
    }
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) return;
    group.resize(slash);
  }
}

}  // namespace

std::optional<GroupLimit> group_limit() {
  std::optional<GroupLimit> limit;
  const std::string text = content("/proc/self/cgroup");
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    const std::string line = text.substr(at, end - at);
    at = end == std::string::npos ? text.size() : end + 1;
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    if (controllers == ",,") {
      lower_upwards(limit, kMount, line.substr(second + 1), true);
    } else if (controllers.find(",memory,") != std::string::npos) {
      lower_upwards(limit, kMemoryMount, line.substr(second + 1), false);
    }
  }
  return limit;
}

}  // namespace profl
