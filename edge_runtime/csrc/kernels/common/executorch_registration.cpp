// Registers the operators of the table with ExecuTorch when this library is loaded.
#include <executorch/runtime/kernel/operator_registry.h>

#include "kernels/common/kernels.h"

namespace profl {
namespace {

using ::executorch::runtime::Kernel;

// An exception must not pass through ExecuTorch's frames, which have no way to unwind them.
template <void (*kernel)(Context&, Stack)>
void guarded(Context& context, Stack stack) noexcept {
  try {
    kernel(context, stack);
  } catch (...) {
    context.fail(Error::MemoryAllocationFailed);
  }
}

#define PROFL_KERNEL(name) Kernel("profl::" #name ".out", guarded<name>),
const Kernel kKernels[] = {PROFL_OPERATORS(PROFL_KERNEL)};
#undef PROFL_KERNEL

[[maybe_unused]] const auto kRegistered =
    ::executorch::runtime::register_kernels({kKernels, sizeof(kKernels) / sizeof(kKernels[0])});

}  // namespace
}  // namespace profl
