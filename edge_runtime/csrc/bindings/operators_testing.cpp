// Test-only binding: calls one registered kernel with arguments from Python, in the order of its stack.
#include <executorch/runtime/core/evalue.h>
#include <executorch/runtime/core/exec_aten/exec_aten.h>
#include <executorch/runtime/core/span.h>
#include <executorch/runtime/kernel/kernel_runtime_context.h>
#include <executorch/runtime/kernel/operator_registry.h>
#include <executorch/runtime/platform/runtime.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <vector>

#include "operators/operator_row.h"
#include "threads/thread_pool.h"

namespace nb = nanobind;

namespace {

using executorch::aten::ScalarType;
using executorch::aten::TensorImpl;
using executorch::runtime::EValue;

struct Operand {
  std::vector<TensorImpl::SizesType> sizes;
  std::vector<TensorImpl::DimOrderType> order;
  std::unique_ptr<TensorImpl> tensor;
  std::vector<EValue> items;
  std::vector<EValue*> pointers;
  std::vector<int64_t> unboxed;
  std::unique_ptr<executorch::runtime::BoxedEvalueList<int64_t>> list;
  EValue value;
};

void from_array(nb::handle argument, Operand& to) {
  auto array = nb::cast<nb::ndarray<nb::c_contig, nb::device::cpu>>(argument);
  for (size_t d = 0; d < array.ndim(); ++d) {
    to.sizes.push_back(static_cast<TensorImpl::SizesType>(array.shape(d)));
    to.order.push_back(static_cast<TensorImpl::DimOrderType>(d));
  }
  ScalarType type = ScalarType::Float;
  if (array.dtype() == nb::dtype<int64_t>()) type = ScalarType::Long;
  if (array.dtype() == nb::dtype<uint16_t>()) type = ScalarType::BFloat16;
  if (array.dtype() == nb::dtype<bool>()) type = ScalarType::Bool;
  to.tensor = std::make_unique<TensorImpl>(type, static_cast<ssize_t>(to.sizes.size()), to.sizes.data(), array.data(),
                                           to.order.data());
  to.value = EValue(executorch::aten::Tensor(to.tensor.get()));
}

void from_list(nb::handle argument, Operand& to) {
  for (nb::handle item : nb::cast<nb::list>(argument)) to.items.emplace_back(nb::cast<int64_t>(item));
  to.unboxed.resize(to.items.size());
  for (EValue& item : to.items) to.pointers.push_back(&item);
  to.list = std::make_unique<executorch::runtime::BoxedEvalueList<int64_t>>(to.pointers.data(), to.unboxed.data(),
                                                                            static_cast<int>(to.items.size()));
  to.value = EValue(to.list.get());
}

// Every buffer of one thread; of more threads those that find a task in time.
void fill_workspace(float value) {
  profl::parallel_for(profl::thread_count(), [value](int64_t, float* workspace) {
    std::fill_n(workspace, profl::kWorkspaceBytesPerThread / sizeof(float), value);
  });
}

int call(const std::string& name, nb::list arguments) {
  executorch::runtime::runtime_init();
  auto kernel = executorch::runtime::get_op_function_from_registry(name.c_str());
  if (!kernel.ok()) throw nb::key_error(name.c_str());
  std::deque<Operand> operands;
  std::vector<EValue*> stack;
  for (nb::handle argument : arguments) {
    Operand& operand = operands.emplace_back();
    if (argument.is_none()) {
      operand.value = EValue();
    } else if (nb::isinstance<nb::bool_>(argument)) {
      operand.value = EValue(nb::cast<bool>(argument));
    } else if (nb::isinstance<nb::int_>(argument)) {
      operand.value = EValue(nb::cast<int64_t>(argument));
    } else if (nb::isinstance<nb::float_>(argument)) {
      operand.value = EValue(nb::cast<double>(argument));
    } else if (nb::isinstance<nb::list>(argument)) {
      from_list(argument, operand);
    } else {
      from_array(argument, operand);
    }
    stack.push_back(&operand.value);
  }
  executorch::runtime::KernelRuntimeContext context;
  (*kernel)(context, executorch::runtime::Span<EValue*>(stack.data(), stack.size()));
  return static_cast<int>(context.failure_state());
}

profl::Argument described(nb::handle argument) {
  using profl::Argument;
  Argument to;
  if (argument.is_none()) return to;
  if (nb::isinstance<nb::bool_>(argument)) {
    to.kind = Argument::Kind::flag;
    to.integer = nb::cast<bool>(argument);
  } else if (nb::isinstance<nb::int_>(argument)) {
    to.kind = Argument::Kind::integer;
    to.integer = nb::cast<int64_t>(argument);
  } else if (nb::isinstance<nb::float_>(argument)) {
    to.kind = Argument::Kind::number;
    to.number = nb::cast<double>(argument);
  } else if (nb::isinstance<nb::list>(argument)) {
    to.kind = Argument::Kind::integers;
    to.items = nb::cast<std::vector<int64_t>>(argument);
  } else {
    // A tensor as its type and its sizes.
    const auto [type, sizes] = nb::cast<std::pair<std::string, std::vector<int64_t>>>(argument);
    to.kind = Argument::Kind::tensor;
    to.items = sizes;
    to.elements = 1;
    for (int64_t size : sizes) to.elements *= size;
    to.element = type == "float32"    ? profl::Element::float32
                 : type == "bfloat16" ? profl::Element::bfloat16
                 : type == "int64"    ? profl::Element::int64
                                      : profl::Element::boolean;
  }
  return to;
}

// What of the arguments does not keep to the operator's row, empty if all does.
std::string check(const std::string& name, nb::list arguments) {
  std::deque<profl::Argument> all;
  std::vector<const profl::Argument*> stack;
  for (nb::handle argument : arguments) stack.push_back(&all.emplace_back(described(argument)));
  return profl::OperatorRow(name).violation(stack);
}

std::vector<std::string> operators() {
  std::vector<std::string> names;
  for (std::string_view name : profl::operator_names()) names.emplace_back(name);
  return names;
}

std::vector<std::string> registered() {
  std::vector<std::string> names;
  for (const auto& kernel : executorch::runtime::get_registered_kernels()) names.emplace_back(kernel.name_);
  return names;
}

}  // namespace

NB_MODULE(_operators, module) {
  module.doc() = "Calls single kernels; for tests.";
  module.def("call", &call, nb::arg("name"), nb::arg("arguments"),
             "Call a kernel such as `profl::relu.out`; returns ExecuTorch's error number, 0 when it succeeded.");
  module.def("check", &check, nb::arg("name"), nb::arg("arguments"),
             "What of the arguments does not keep to the row of an operator; tensors are (type, sizes).");
  module.def("operators", &operators, "The operators of the table that is compiled in.");
  module.def("registered", &registered, "All kernels that are registered with ExecuTorch, its own among them.");
  module.def("set_threads", &profl::set_thread_count, nb::arg("threads"));
  module.def("fill_workspace", &fill_workspace, nb::arg("value"),
             "Fill the kernels' workspace, so that what they read and did not write shows.");
}
