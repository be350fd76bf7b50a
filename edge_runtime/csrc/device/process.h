// What the training process does to its own memory and signals.
#pragma once

#include <cstddef>

namespace profl {

struct Resident {
  size_t now, peak;
};

// VmRSS and VmHWM of this process, in bytes; throws std::runtime_error where the kernel does not tell.
Resident resident_bytes();

// One malloc arena that gives freed memory back at once; call before threads start.
void settle_allocator();

// Gives the resident pages of all loaded libraries' code and constants back, and what malloc holds free. Pages that are
// needed again are found in the page cache by a minor fault; those that only start-up touched stay out.
void release_unused_pages();

// Makes the code of the kernels and of the engine resident, as one step would.
void load_kernels();

// From now on SIGTERM and SIGINT are noted instead of ending the process; the later one counts.
void note_stop_signals();
// The noted signal, 0 without one.
int noted_signal();
// The two signals end the process again.
void end_on_stop_signals();

// Asks the kernel to send `signal` when the parent dies; sends it at once where `parent` is no longer the parent.
void end_with_parent(int parent, int signal);

}  // namespace profl
