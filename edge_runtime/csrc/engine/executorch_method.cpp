// Instructions run by ExecuTorch.
#include <executorch/extension/data_loader/buffer_data_loader.h>
#include <executorch/runtime/core/hierarchical_allocator.h>
#include <executorch/runtime/executor/memory_manager.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/platform.h>
#include <executorch/runtime/platform/runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <optional>
#include <stdexcept>

#include "engine/method.h"
#include "engine/piece_allocator.h"
#include "engine/program_error.h"
#include "values/executorch_values.h"

namespace profl {
namespace {

using executorch::aten::TensorImpl;
using executorch::extension::BufferDataLoader;
using executorch::runtime::EValue;
using executorch::runtime::HierarchicalAllocator;
using executorch::runtime::MemoryManager;
using executorch::runtime::MethodMeta;
using executorch::runtime::Result;
using executorch::runtime::Span;
using executorch::runtime::TensorInfo;
using Failure = executorch::runtime::Error;
using Loaded = executorch::runtime::Program;

constexpr char kMethod[] = "forward";

[[noreturn]] void fail(const std::string& what, Failure error) {
  char number[96];
  std::snprintf(number, sizeof(number), " (ExecuTorch error %d, %s)", static_cast<int>(error),
                executorch::runtime::to_string(error));
  throw ProgramError(what + number);
}

// The runtime logs which operator it misses and returns only a number. A user gets one line: this keeps the name, and
// all else that the runtime would write to standard error is dropped.
thread_local std::string missing_operator;

void note_log(et_timestamp_t, et_pal_log_level_t, const char*, const char*, size_t, const char* message, size_t) {
  constexpr char kMissing[] = "Missing operator: ";
  if (std::strncmp(message, kMissing, sizeof(kMissing) - 1) != 0) return;
  const char* name = std::strchr(message, ']');
  missing_operator = name == nullptr ? message + sizeof(kMissing) - 1 : name + 2;
}

void start_runtime() {
  static std::once_flag once;
  std::call_once(once, [] {
    executorch::runtime::register_pal(executorch::runtime::PalImpl::create(note_log, __FILE__));
    executorch::runtime::runtime_init();
  });
}

}  // namespace

struct Method::State {
  std::string path;
  std::unique_ptr<const MappedFile> bytes;
  std::optional<BufferDataLoader> loader;
  std::optional<Loaded> program;
  PieceAllocator structures;
  Span<uint8_t> arena;
  std::optional<HierarchicalAllocator> planned;
  std::optional<MemoryManager> manager;
  std::optional<executorch::runtime::Method> method;
  // Inputs are tensors of our own, so that the program keeps no copy of what they point at.
  struct Input {
    std::vector<TensorImpl::SizesType> sizes;
    std::vector<TensorImpl::DimOrderType> order;
    std::unique_ptr<TensorImpl> tensor;
  };
  std::vector<Input> inputs;
  size_t next = 0;

  MethodMeta meta() const { return *program->method_meta(kMethod); }
  TensorInfo info(size_t index) const { return *meta().input_tensor_meta(index); }
};

Method::Method(std::string path, const ProgramFile& file, std::unique_ptr<const MappedFile> bytes, uint8_t* arena)
    : state_(new State) {
  start_runtime();
  State& s = *state_;
  s.path = std::move(path);
  s.bytes = std::move(bytes);
  s.loader.emplace(s.bytes->data(), s.bytes->size());
  s.structures.limit_to_file(s.bytes->size());
  Result<Loaded> program = Loaded::load(&*s.loader, Loaded::Verification::InternalConsistency);
  if (!program.ok()) fail(s.path + ": is not a program this runtime reads", program.error());
  s.program.emplace(std::move(*program));
  Result<MethodMeta> meta = s.program->method_meta(kMethod);
  if (!meta.ok()) fail(s.path + ": has no method 'forward'", meta.error());
  s.arena = {arena, static_cast<size_t>(file.arena_bytes)};
  s.planned.emplace(Span<Span<uint8_t>>(&s.arena, 1));
  s.manager.emplace(&s.structures, &*s.planned);
  Result<executorch::runtime::Method> method = s.program->load_method(kMethod, &*s.manager);
  if (method.error() == Failure::OperatorMissing) {
    throw ProgramError(s.path + ": needs the operator " + missing_operator +
                       ", which this release does not have; install the release that exported it, or export it again");
  }
  if (!method.ok()) fail(s.path + ": cannot be loaded; was it exported by another release?", method.error());
  s.method.emplace(std::move(*method));
  s.inputs.resize(meta->num_inputs());
}

Method::~Method() = default;

size_t Method::input_count() const { return state_->inputs.size(); }

size_t Method::output_count() const { return state_->method->outputs_size(); }

Tensor Method::input_info(size_t index) const {
  const TensorInfo info = state_->info(index);
  return {static_cast<ScalarType>(info.scalar_type()), {info.sizes().data(), info.sizes().size()}, input_data(index)};
}

void Method::set_input(size_t index, const void* data) {
  const TensorInfo info = state_->info(index);
  State::Input& input = state_->inputs[index];
  input.sizes.assign(info.sizes().begin(), info.sizes().end());
  input.order.assign(info.dim_order().begin(), info.dim_order().end());
  input.tensor = std::make_unique<TensorImpl>(info.scalar_type(), static_cast<ssize_t>(input.sizes.size()),
                                              input.sizes.data(), const_cast<void*>(data), input.order.data());
  const Failure error = state_->method->set_input(EValue(executorch::aten::Tensor(input.tensor.get())), index);
  if (error != Failure::Ok) fail(state_->path + ": input " + std::to_string(index) + " was not accepted", error);
}

void* Method::input_data(size_t index) const {
  const std::unique_ptr<TensorImpl>& tensor = state_->inputs[index].tensor;
  return tensor == nullptr ? nullptr : tensor->mutable_data();
}

bool Method::step() {
  const Failure error = state_->method->step();
  if (error == Failure::EndOfMethod) return false;
  if (error != Failure::Ok) {
    const size_t at = state_->next;
    state_->next = 0;
    (void)state_->method->reset_execution();
    fail(state_->path + ": instruction " + std::to_string(at) + " failed", error);
  }
  ++state_->next;
  return true;
}

void Method::restart() {
  state_->next = 0;
  const Failure error = state_->method->reset_execution();
  if (error != Failure::Ok) fail(state_->path + ": cannot be run again", error);
}

Tensor Method::output(size_t index) const { return tensor_of(state_->method->get_output(index).toTensor()); }

std::vector<std::string> Method::buffer_names() const {
  std::vector<std::string> names;
  const MethodMeta meta = state_->meta();
  for (size_t i = 0; i < meta.num_attributes(); ++i) {
    names.emplace_back(meta.attribute_tensor_meta(i)->name());
  }
  return names;
}

Tensor Method::buffer(const std::string& name) {
  auto tensor = state_->method->get_attribute(name);
  if (!tensor.ok()) throw std::out_of_range(name);
  return tensor_of(*tensor);
}

}  // namespace profl
