#include "device/child.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <initializer_list>

namespace profl {
namespace {

constexpr int kRemoveAttempts = 50;
constexpr long kRemoveWaitNanoseconds = 20 * 1000 * 1000;

volatile std::sig_atomic_t watched = 0;

// What a terminal sends reaches the whole process group, the child included: only what was sent to this process alone
// goes on.
void forward(int signal, siginfo_t* info, void*) {
  if (watched > 0 && info->si_code <= 0) kill(watched, signal);
}

}  // namespace

bool enter_group(const char* folder) {
  char path[4096];
  if (std::snprintf(path, sizeof(path), "%s/cgroup.procs", folder) >= static_cast<int>(sizeof(path))) return false;
  const int file = open(path, O_WRONLY | O_CLOEXEC);
  if (file < 0) return false;
  const bool entered = write(file, "0", 1) == 1;
  close(file);
  return entered;
}

void remove_group(const char* folder) {
  for (int attempt = 0; attempt < kRemoveAttempts; ++attempt) {
    if (rmdir(folder) == 0 || errno == ENOENT) return;
    const timespec wait{0, kRemoveWaitNanoseconds};
    nanosleep(&wait, nullptr);
  }
}

long count_kills(const char* events) {
  if (events == nullptr) return 0;
  char text[4096];
  const int file = open(events, O_RDONLY | O_CLOEXEC);
  const ssize_t count = file < 0 ? -1 : read(file, text, sizeof(text) - 1);
  if (file >= 0) close(file);
  if (count <= 0) return 0;
  text[count] = '\0';
  const char* at = std::strstr(text, "oom_kill ");
  return at == nullptr ? 0 : std::strtol(at + std::strlen("oom_kill "), nullptr, 10);
}

void forward_signals() {
  struct sigaction action = {};
  action.sa_sigaction = forward;
  action.sa_flags = SA_RESTART | SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaction(signal, &action, nullptr);
}

int wait_for(pid_t child) {
  watched = child;
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  watched = 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

void describe_end(char* text, size_t size, int status, const char* limit) {
  if (limit != nullptr) {
    std::snprintf(text, size, "%s: the kernel ended the training at this limit", limit);
  } else if (status == -SIGKILL) {
    std::snprintf(text, size,
                  "the training process was killed (signal 9): by somebody, or by the kernel for want of memory");
  } else {
    std::snprintf(text, size, "the training process was ended by signal %d (%s)", -status, strsignal(-status));
  }
}

}  // namespace profl
