// profl-supervise: runs the training process and outlives it, so that a kill by the kernel leaves one line. It takes
// about 0.1 MB of its own, where the interpreter that prepared the training would keep 25.
//
//   profl-supervise [--check WORD] [--group FOLDER] [--data-limit BYTES] [--parent PID] [--limit TEXT]
//                   [--events FILE] -- COMMAND...
//
// --check: first run COMMAND with WORD behind it and without the limit; go on where it ends with status 0.
// --group: control group that COMMAND enters before it starts; removed in the end.
// --data-limit: RLIMIT_DATA of COMMAND, where there is no group.
// --parent: end with this process, where it is the parent.
// --limit: how to name the limit in the line of a kill.
// --events: file of the kernel that counts kills at the limit, as `oom_kill N`.
//
// SIGTERM, SIGINT and SIGHUP go on to COMMAND. The exit status is COMMAND's, 1 after a kill.
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "device/child.h"

namespace {

struct Options {
  const char* check = nullptr;
  const char* group = nullptr;
  const char* data_limit = nullptr;
  const char* parent = nullptr;
  const char* limit = nullptr;
  const char* events = nullptr;
  char** command = nullptr;
  int words = 0;
};

constexpr int kFailed = 1;
constexpr int kUsage = 2;

void write_line(const char* text) {
  char line[1024];
  const int length = std::snprintf(line, sizeof(line), "profl-edge: error: %s\n", text);
  const size_t size = length < 0 ? 0 : static_cast<size_t>(length) < sizeof(line) ? length : sizeof(line) - 1;
  // A closed standard error takes no line; there is nobody else to tell.
  if (write(STDERR_FILENO, line, size) < 0) return;
}

bool limit_data(const char* bytes) {
  const rlim_t limit = std::strtoull(bytes, nullptr, 10);
  const rlimit both{limit, limit};
  return setrlimit(RLIMIT_DATA, &both) == 0;
}

[[noreturn]] void become(const Options& options, bool limited, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (getppid() != parent) _exit(kFailed);
  if (limited && options.group != nullptr && !profl::enter_group(options.group)) {
    write_line("the training process cannot enter its control group; try again");
    _exit(kFailed);
  }
  if (limited && options.data_limit != nullptr && !limit_data(options.data_limit)) {
    write_line("the limit of the training process cannot be set");
    _exit(kFailed);
  }
  execv(options.command[0], options.command);
  char text[512];
  std::snprintf(text, sizeof(text), "%s: cannot be started: %s", options.command[0], std::strerror(errno));
  write_line(text);
  _exit(kFailed);
}

// Exit status of one run, or minus the signal that ended it.
int run(const Options& options, bool limited) {
  const pid_t self = getpid();
  const pid_t started = fork();
  if (started < 0) {
    char text[256];
    std::snprintf(text, sizeof(text), "the training process cannot be started: %s", std::strerror(errno));
    write_line(text);
    return kFailed;
  }
  if (started == 0) become(options, limited, self);
  return profl::wait_for(started);
}

int report(const Options& options, int status, bool at_limit) {
  if (status >= 0) return status;
  char text[512];
  const char* const limit = options.limit == nullptr ? "memory limit" : options.limit;
  profl::describe_end(text, sizeof(text), status, at_limit ? limit : nullptr);
  write_line(text);
  return kFailed;
}

bool parse(int count, char** words, Options& options) {
  const struct {
    const char* name;
    const char** value;
  } known[] = {{"--check", &options.check},   {"--group", &options.group}, {"--data-limit", &options.data_limit},
               {"--parent", &options.parent}, {"--limit", &options.limit}, {"--events", &options.events}};
  int at = 1;
  for (; at < count && std::strcmp(words[at], "--") != 0; at += 2) {
    bool found = false;
    for (const auto& option : known) {
      if (std::strcmp(words[at], option.name) != 0 || at + 1 >= count) continue;
      *option.value = words[at + 1];
      found = true;
    }
    if (!found) return false;
  }
  options.command = words + at + 1;
  options.words = count - at - 1;
  return options.words > 0;
}

}  // namespace

int main(int count, char** words) {
  Options options;
  if (!parse(count, words, options)) {
    write_line("profl-supervise is called by profl-edge, not by hand");
    return kUsage;
  }
  if (options.parent != nullptr) {
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() != static_cast<pid_t>(std::strtol(options.parent, nullptr, 10))) return kFailed;
  }
  // COMMAND inherits it, from its first page on: huge pages would give it more memory than it touches.
  prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  profl::forward_signals();
  int status = 0;
  if (options.check != nullptr) {
    // The check is the same command with one more word.
    char* checked[64];
    if (options.words + 2 > static_cast<int>(sizeof(checked) / sizeof(checked[0]))) return kUsage;
    std::memcpy(checked, options.command, sizeof(char*) * static_cast<size_t>(options.words));
    checked[options.words] = const_cast<char*>(options.check);
    checked[options.words + 1] = nullptr;
    Options check = options;
    check.command = checked;
    status = report(options, run(check, false), false);
  }
  if (status == 0) {
    const long before = profl::count_kills(options.events);
    status = run(options, true);
    status = report(options, status, profl::count_kills(options.events) > before);
  }
  if (options.group != nullptr) profl::remove_group(options.group);
  return status;
}
