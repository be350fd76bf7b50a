// How many threads are worth starting: the physical cores that this process may use. Two threads of one core share its
// arithmetic units, so that the second one gains a training step nothing.
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <set>
#include <string>

#include "runner/options.h"

namespace profl {
namespace {

// What the kernel says of a processor's siblings; the processor alone where it says nothing.
std::string siblings(int processor) {
  for (const char* name : {"core_cpus_list", "thread_siblings_list"}) {
    const std::string path = "/sys/devices/system/cpu/cpu" + std::to_string(processor) + "/topology/" + name;
    std::FILE* file = std::fopen(path.c_str(), "re");
    if (file == nullptr) continue;
    char line[256] = "";
    const bool read = std::fgets(line, sizeof(line), file) != nullptr;
    std::fclose(file);
    if (read) return line;
  }
  return std::to_string(processor);
}

}  // namespace

int usable_cores() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return 1;
  std::set<std::string> cores;
  for (int processor = 0; processor < CPU_SETSIZE; ++processor) {
    if (CPU_ISSET(processor, &allowed)) cores.insert(siblings(processor));
  }
  return std::max(1, static_cast<int>(cores.size()));
}

}  // namespace profl
