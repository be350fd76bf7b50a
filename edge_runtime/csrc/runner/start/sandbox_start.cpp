// Where the static program starts, before the C library: in a sandbox that refuses system calls with a signal, such as
// that of Android's apps, a refused call fails with ENOSYS instead of ending the process. The C library makes two of
// them before `main` (set_robust_list, rseq) and does without both. It makes the first one in every new thread as well,
// while all signals are blocked, so that no handler would help: threads are started here in its place.
#include <sched.h>
#include <sys/types.h>
#include <ucontext.h>

#include <cerrno>
#include <csignal>
#include <cstdint>

extern "C" {

// Neither the C library nor its thread-local storage is there yet: nothing here may use them.
void profl_fail_refused_calls();

#if defined(__x86_64__)
asm(R"(
  .globl profl_start
profl_start:
  push %rdx
  sub $8, %rsp
  call profl_fail_refused_calls
  add $8, %rsp
  pop %rdx
  jmp _start
profl_return_from_signal:
  mov $15, %eax
  syscall
)");
void profl_return_from_signal();
#elif defined(__aarch64__)
asm(R"(
  .globl profl_start
profl_start:
  stp x0, x30, [sp, #-16]!
  bl profl_fail_refused_calls
  ldp x0, x30, [sp], #16
  b _start
)");
#else
#error "profl-train starts on x86-64 and 64-bit ARM"
#endif

}  // extern "C"

namespace {

constexpr int kRefused = 1;  // SYS_SECCOMP
constexpr unsigned long kRestorer = 0x04000000;

struct KernelAction {
  void (*handler)(int, siginfo_t*, void*);
  unsigned long flags;
  void (*restorer)();
  unsigned long mask;
};

void fail_call(int, siginfo_t* info, void* context) {
  if (info->si_code != kRefused) __builtin_trap();
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext;
#if defined(__x86_64__)
  registers.gregs[REG_RAX] = -ENOSYS;
#else
  registers.regs[0] = static_cast<unsigned long long>(-ENOSYS);
#endif
}

// The kernel's struct clone_args, as far as the C library fills it in.
struct CloneArguments {
  uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
};

// Lies at the top of a new thread's stack, whose alignment it keeps.
struct alignas(64) Thread {
  int (*function)(void*);
  void* argument;
};

int start_thread(void* memory) {
  const Thread thread = *static_cast<Thread*>(memory);
  sigset_t refused;
  sigemptyset(&refused);
  sigaddset(&refused, SIGSYS);
  sigprocmask(SIG_UNBLOCK, &refused, nullptr);
  return thread.function(thread.argument);
}

}  // namespace

// What the C library starts a thread with; linked in its place.
extern "C" int __clone_internal(const CloneArguments* given, int (*function)(void*), void* argument) {
  auto* const top = reinterpret_cast<Thread*>(given->stack + given->stack_size) - 1;
  *top = {function, argument};
  return clone(start_thread, top, static_cast<int>(given->flags | given->exit_signal), top,
               reinterpret_cast<pid_t*>(given->parent_tid), reinterpret_cast<void*>(given->tls),
               reinterpret_cast<pid_t*>(given->child_tid));
}

void profl_fail_refused_calls() {
#if defined(__x86_64__)
  const KernelAction action{fail_call, SA_SIGINFO | SA_NODEFER | kRestorer, profl_return_from_signal, 0};
  long result = 13;
  register unsigned long size asm("r10") = sizeof(action.mask);
  asm volatile("syscall" : "+a"(result) : "D"(SIGSYS), "S"(&action), "d"(nullptr), "r"(size) : "rcx", "r11", "memory");
#else
  const KernelAction action{fail_call, SA_SIGINFO | SA_NODEFER, nullptr, 0};
  register long number asm("x8") = 134;
  register long signal asm("x0") = SIGSYS;
  register const KernelAction* now asm("x1") = &action;
  register KernelAction* before asm("x2") = nullptr;
  register unsigned long size asm("x3") = sizeof(action.mask);
  asm volatile("svc #0" : "+r"(signal) : "r"(number), "r"(now), "r"(before), "r"(size) : "memory");
#endif
}
