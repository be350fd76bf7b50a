#include "runner/limits/supervised.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>

#include "device/child.h"
#include "runner/files/failure.h"
#include "runner/limits/memory_groups.h"

namespace profl {
namespace {

struct Watched {
  std::string limit, events;
};

std::string in_megabytes(const std::string& name, uint64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), " %.1fMB", static_cast<double>(bytes) / (1 << 20));
  return name + text;
}

// Leaves the group empty behind it, also where the work could not begin.
struct Removed {
  const std::optional<OwnGroup>& group;
  ~Removed() {
    if (group) remove_group(group->folder.c_str());
  }
};

int in_child(pid_t parent, const OwnGroup* group, const std::function<int(const OwnGroup*)>& work) {
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (getppid() != parent) _exit(kFailed);
  if (group != nullptr && !enter_group(group->folder.c_str())) {
    fail("the training process cannot enter its control group; try again");
  }
  return work(group);
}

}  // namespace

int supervised(std::optional<uint64_t> asked, const std::function<int(const OwnGroup*)>& work) {
  const std::optional<OwnGroup> group = asked ? OwnGroup::make() : std::nullopt;
  const std::optional<GroupLimit> outside = group_limit();
  if (!group && !outside) return work(nullptr);
  const Watched watched = group ? Watched{in_megabytes("--memory-limit", *asked), group->events()}
                                : Watched{in_megabytes(outside->name(), outside->bytes), outside->events};
  const long before = count_kills(watched.events.c_str());
  const pid_t self = getpid();
  const pid_t child = fork();
  if (child == 0) return in_child(self, group ? &*group : nullptr, work);
  const Removed removed{group};
  if (child < 0) fail(std::string("the training process cannot be started: ") + std::strerror(errno));
  forward_signals();
  const int status = wait_for(child);
  if (status >= 0) return status;
  const bool at_limit = count_kills(watched.events.c_str()) > before;
  char text[512];
  describe_end(text, sizeof(text), status, at_limit ? watched.limit.c_str() : nullptr);
  fail(text);
}

}  // namespace profl
