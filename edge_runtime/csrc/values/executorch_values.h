// ExecuTorch's types by the names that are used here.
#pragma once

#include <executorch/runtime/core/evalue.h>
#include <executorch/runtime/core/exec_aten/exec_aten.h>
#include <executorch/runtime/core/span.h>
#include <executorch/runtime/executor/method_meta.h>
#include <executorch/runtime/kernel/kernel_runtime_context.h>

namespace profl {

using Context = ::executorch::runtime::KernelRuntimeContext;
using Error = ::executorch::runtime::Error;
using ScalarType = ::executorch::aten::ScalarType;
using Stack = ::executorch::runtime::Span<::executorch::runtime::EValue*>;
using Tensor = ::executorch::aten::Tensor;
using TensorInfo = ::executorch::runtime::TensorInfo;

}  // namespace profl
