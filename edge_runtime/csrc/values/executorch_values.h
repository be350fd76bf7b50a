// ExecuTorch's tensors, arguments and errors as those of values.h, and back; nothing is copied.
#pragma once

#include <executorch/runtime/core/error.h>
#include <executorch/runtime/core/evalue.h>
#include <executorch/runtime/core/exec_aten/exec_aten.h>

#include "values/values.h"

namespace profl {

inline Tensor tensor_of(const ::executorch::aten::Tensor& from) {
  return {
      static_cast<ScalarType>(from.scalar_type()), {from.sizes().data(), from.sizes().size()}, from.mutable_data_ptr()};
}

inline Value value_of(const ::executorch::runtime::EValue& from) {
  if (from.isTensor()) return Value(tensor_of(from.toTensor()));
  if (from.isDouble()) return Value(from.toDouble());
  if (from.isInt()) return Value(from.toInt());
  if (from.isBool()) return Value(int64_t{from.toBool()});
  if (!from.isIntList()) return Value();
  const auto items = from.toIntList();
  return Value(List<int64_t>(items.data(), items.size()));
}

inline ::executorch::runtime::Error error_of(Error error) {
  using Theirs = ::executorch::runtime::Error;
  switch (error) {
    case Error::Ok:
      return Theirs::Ok;
    case Error::InvalidArgument:
      return Theirs::InvalidArgument;
    case Error::NotSupported:
      return Theirs::NotSupported;
    default:
      return Theirs::MemoryAllocationFailed;
  }
}

}  // namespace profl
