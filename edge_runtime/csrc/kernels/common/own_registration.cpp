// The kernels of all operators by their names, for our own engine.
#include "kernels/common/kernels.h"

namespace profl {
namespace {

struct Row {
  std::string_view name;
  Kernel kernel;
};

#define PROFL_KERNEL(name) Row{#name, name},
const Row kRows[] = {PROFL_OPERATORS(PROFL_KERNEL)};
#undef PROFL_KERNEL

}  // namespace

Kernel find_kernel(std::string_view name) {
  for (const Row& row : kRows) {
    if (row.name == name) return row.kernel;
  }
  return nullptr;
}

}  // namespace profl
