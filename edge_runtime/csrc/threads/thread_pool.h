// A thread pool that sleeps when idle and cuts work deterministically.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace profl {

// Bytes of tile buffers each thread owns; the memory plan counts them.
constexpr size_t kWorkspaceBytesPerThread = size_t{1} << 20;
constexpr int64_t kWorkspaceFloats = static_cast<int64_t>(kWorkspaceBytesPerThread / sizeof(float));

// Sets the number of threads (>= 1) and allocates their tile buffers. Not to be called while work runs.
void set_thread_count(int count);
int thread_count();
// Gives the pages of the tile buffers back until they are used again. Not to be called while work runs.
void release_workspace();

// Runs body(task, workspace) for task in [0, tasks); `workspace` is the running thread's tile buffer of
// kWorkspaceBytesPerThread bytes, 64-byte aligned. Tasks must write disjoint results.
void parallel_for(int64_t tasks, const std::function<void(int64_t task, float* workspace)>& body);

}  // namespace profl
