// Registers the operators of the table with ExecuTorch when this library is loaded.
#include <executorch/runtime/core/span.h>
#include <executorch/runtime/kernel/kernel_runtime_context.h>
#include <executorch/runtime/kernel/operator_registry.h>

#include <array>

#include "kernels/common/kernels.h"
#include "values/executorch_values.h"

namespace profl {
namespace {

using ::executorch::runtime::EValue;
using ::executorch::runtime::KernelRuntimeContext;
using ::executorch::runtime::Span;

constexpr size_t kUsualArguments = 24;

// A call with as many arguments as almost every operator takes asks for no memory.
void call(Kernel kernel, KernelRuntimeContext& theirs, Span<EValue*> arguments) {
  std::array<Value, kUsualArguments> few;
  std::array<const Value*, kUsualArguments> few_places;
  std::vector<Value> many;
  std::vector<const Value*> many_places;
  const size_t count = arguments.size();
  Value* values = few.data();
  const Value** places = few_places.data();
  if (count > kUsualArguments) {
    many.resize(count);
    many_places.resize(count);
    values = many.data();
    places = many_places.data();
  }
  for (size_t i = 0; i < count; ++i) {
    values[i] = value_of(*arguments[i]);
    places[i] = &values[i];
  }
  Context context;
  kernel(context, Stack(places, count));
  if (context.failure_state() != Error::Ok) theirs.fail(error_of(context.failure_state()));
}

// An exception must not pass through ExecuTorch's frames, which have no way to unwind them.
template <Kernel kernel>
void guarded(KernelRuntimeContext& context, Span<EValue*> arguments) noexcept {
  try {
    call(kernel, context, arguments);
  } catch (...) {
    context.fail(error_of(Error::MemoryAllocationFailed));
  }
}

#define PROFL_KERNEL(name) ::executorch::runtime::Kernel("profl::" #name ".out", guarded<name>),
const ::executorch::runtime::Kernel kKernels[] = {PROFL_OPERATORS(PROFL_KERNEL)};
#undef PROFL_KERNEL

[[maybe_unused]] const auto kRegistered =
    ::executorch::runtime::register_kernels({kKernels, sizeof(kKernels) / sizeof(kKernels[0])});

}  // namespace
}  // namespace profl
