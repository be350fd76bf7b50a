#include "device/process.h"

#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace profl {
namespace {

constexpr int kLargeAllocation = 128 << 10;

volatile std::sig_atomic_t noted = 0;

void note(int signal) { noted = signal; }

void handle(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
}

size_t field_bytes(const char* status, const char* field) {
  const char* at = std::strstr(status, field);
  if (at == nullptr) throw std::runtime_error(std::string("/proc/self/status has no ") + field);
  return std::strtoull(at + std::strlen(field), nullptr, 10) << 10;
}

template <class Visit>
void visit_unwritten_segments(const dl_phdr_info* library, Visit visit) {
  static const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const auto& segment = library->dlpi_phdr[i];
    // Relocations are written into writable segments only (what is read-only after them included): others are as in
    // their file.
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
    const uintptr_t begin = (library->dlpi_addr + segment.p_vaddr + page - 1) / page * page;
    const uintptr_t end = (library->dlpi_addr + segment.p_vaddr + segment.p_memsz) / page * page;
    if (begin < end) visit(reinterpret_cast<uint8_t*>(begin), end - begin);
  }
}

int release_library(dl_phdr_info* library, size_t, void*) {
  visit_unwritten_segments(library, [](uint8_t* begin, size_t size) { madvise(begin, size, MADV_DONTNEED); });
  return 0;
}

// Whether a library holds kernels or the engine: in the static runner all is in the program itself, which has no name.
bool is_ours(const char* path) {
#ifdef PROFL_OWN_ENGINE
  return path[0] == '\0';
#else
  const char* name = std::strrchr(path, '/');
  return name != nullptr &&
         (std::strcmp(name, "/libprofl_kernels.so") == 0 || std::strcmp(name, "/libexecutorch.so") == 0);
#endif
}

// The first byte of a page may lie between two constants, where the address sanitizer allows nothing.
__attribute__((no_sanitize_address, noinline)) void read_pages(uint8_t* begin, size_t size) {
  static const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (size_t at = 0; at < size; at += page) (void)*static_cast<volatile uint8_t*>(begin + at);
}

int load_ours(dl_phdr_info* library, size_t, void*) {
  if (!is_ours(library->dlpi_name)) return 0;
  visit_unwritten_segments(library, read_pages);
  return 0;
}

}  // namespace

Resident resident_bytes() {
  char status[8192];
  const int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  const ssize_t count = file < 0 ? -1 : read(file, status, sizeof(status) - 1);
  if (file >= 0) close(file);
  if (count <= 0) throw std::runtime_error("/proc/self/status cannot be read");
  status[count] = '\0';
  return {field_bytes(status, "VmRSS:"), field_bytes(status, "VmHWM:")};
}

void settle_allocator() {
  // With huge pages a process has more memory than it touches: up to 2 MB for each end of a mapping.
  prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
#ifdef __GLIBC__
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_MMAP_THRESHOLD, kLargeAllocation);
  mallopt(M_TRIM_THRESHOLD, kLargeAllocation);
#endif
}

void release_unused_pages() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
  dl_iterate_phdr(release_library, nullptr);
}

void load_kernels() {
  dl_iterate_phdr(load_ours, nullptr);
  // Of the mathematics library only what kernels call.
  volatile float value = 0.5f;
  value = std::exp(value) + std::log(value) + std::tanh(value) + std::erf(value) + std::sqrt(value);
  volatile double wide = 0.5;
  wide = std::exp(wide) + std::log(wide);
}

void note_stop_signals() { handle(note); }

int noted_signal() { return noted; }

void end_on_stop_signals() { handle(SIG_DFL); }

void end_with_parent(int parent, int signal) {
  prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0);
  if (getppid() != parent) kill(getpid(), signal);
}

}  // namespace profl
