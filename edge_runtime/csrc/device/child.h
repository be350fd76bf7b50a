// A child process that is watched from outside, by a process that stays small: its control group, the signals that are
// meant for it, and how it ended. Nothing here allocates or throws.
#pragma once

#include <sys/types.h>

#include <cstddef>

namespace profl {

// Moves this process into the control group of `folder`; false where the kernel refuses.
bool enter_group(const char* folder);
// Removes the group; its last process may need a moment to be gone.
void remove_group(const char* folder);
// Kills at the limit that the kernel has counted in `events`, a file with `oom_kill N`; 0 without one.
long count_kills(const char* events);

// SIGTERM, SIGINT and SIGHUP that are sent to this process go on to its child, once there is one.
void forward_signals();
// Waits for the end of `child`, to which signals go meanwhile: its exit status, or minus the signal that ended it.
int wait_for(pid_t child);

// What to say of a child that the signal -`status` ended; `limit` names its limit, where it was at that.
void describe_end(char* text, size_t size, int status, const char* limit);

}  // namespace profl
