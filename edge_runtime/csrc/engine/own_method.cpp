// Instructions run by a loop of our own. Every place, index and shape was checked before (engine/program_check.cpp).
#include <deque>
#include <new>
#include <stdexcept>

#include "engine/call_times.h"
#include "engine/method.h"
#include "engine/program_error.h"

namespace profl {
namespace {

ScalarType type_of(Element element) {
  switch (element) {
    case Element::int64:
      return ScalarType::Long;
    case Element::boolean:
      return ScalarType::Bool;
    case Element::bfloat16:
      return ScalarType::BFloat16;
    default:
      return ScalarType::Float;
  }
}

// The lists that values point at.
struct Lists {
  std::deque<std::vector<int32_t>> sizes;
  std::deque<std::vector<int64_t>> items;
};

Value value_of(const FileValue& value, uint8_t* arena, Lists& lists) {
  const Argument& argument = value.argument;
  switch (argument.kind) {
    case Argument::Kind::integer:
    case Argument::Kind::flag:
      return Value(argument.integer);
    case Argument::Kind::number:
      return Value(argument.number);
    case Argument::Kind::integers:
      return Value(List<int64_t>(lists.items.emplace_back(argument.items)));
    case Argument::Kind::tensor: {
      void* data = value.offset == FileValue::kOutside ? nullptr : arena + value.offset;
      const List<int32_t> sizes(lists.sizes.emplace_back(argument.items.begin(), argument.items.end()));
      return Value(Tensor(type_of(argument.element), sizes, data));
    }
    default:
      return Value();
  }
}

const char* text_of(Error error) {
  switch (error) {
    case Error::MemoryAllocationFailed:
      return "MemoryAllocationFailed: no memory left";
    case Error::NotSupported:
      return "it is not supported";
    default:
      return "its arguments are invalid";
  }
}

struct Call {
  Kernel kernel;  // null: a jump to the end, unless its argument is true
  std::vector<Value*> arguments;
};

struct Buffer {
  std::string name;
  size_t value;
};

}  // namespace

struct Method::State {
  std::string path;
  Lists lists;
  std::vector<Value> values;
  std::vector<int32_t> inputs, outputs;
  std::vector<Call> calls;
  std::vector<Buffer> buffers;
  size_t next = 0;
#ifdef PROFL_CALL_TIMES
  CallTimes times;
#endif

  Value& input(size_t index) { return values[static_cast<size_t>(inputs[index])]; }

  [[noreturn]] void fail(const std::string& why) {
    const size_t at = next;
    next = 0;
    throw ProgramError(path + ": instruction " + std::to_string(at) + " failed: " + why);
  }

  void call(const Call& call) {
    Context context;
#ifdef PROFL_CALL_TIMES
    const CallTimes::Clock::time_point since = CallTimes::Clock::now();
#endif
    try {
      call.kernel(context, Stack(call.arguments.data(), call.arguments.size()));
    } catch (const std::bad_alloc&) {
      context.fail(Error::MemoryAllocationFailed);
    }
#ifdef PROFL_CALL_TIMES
    times.took(next, since);
#endif
    if (context.failure_state() != Error::Ok) fail(text_of(context.failure_state()));
  }
};

Method::Method(std::string path, const ProgramFile& file, std::unique_ptr<const MappedFile>, uint8_t* arena)
    : state_(new State) {
  State& s = *state_;
  s.path = std::move(path);
  s.inputs = file.inputs;
  s.outputs = file.outputs;
  s.values.reserve(file.values.size());
  for (const FileValue& value : file.values) {
    if (!value.name.empty()) s.buffers.push_back({value.name, s.values.size()});
    s.values.push_back(value_of(value, arena, s.lists));
  }
  std::vector<Kernel> kernels;
  for (const std::string& name : file.operators) kernels.push_back(find_kernel(name));
  s.calls.reserve(file.instructions.size());
  for (const FileInstruction& instruction : file.instructions) {
    const bool jump = instruction.operation == FileInstruction::kJump;
    Call call{jump ? nullptr : kernels[static_cast<size_t>(instruction.operation)], {}};
    call.arguments.reserve(instruction.arguments.size());
    for (const int32_t index : instruction.arguments) {
      call.arguments.push_back(&s.values[static_cast<size_t>(index)]);
    }
    s.calls.push_back(std::move(call));
#ifdef PROFL_CALL_TIMES
    s.times.name(jump ? "" : file.operators[static_cast<size_t>(instruction.operation)]);
    s.times.arguments(s.calls.size() - 1, s.calls.back().arguments);
#endif
  }
}

Method::~Method() = default;

size_t Method::input_count() const { return state_->inputs.size(); }

size_t Method::output_count() const { return state_->outputs.size(); }

Tensor Method::input_info(size_t index) const { return state_->input(index).toTensor(); }

void Method::set_input(size_t index, const void* data) {
  state_->input(index).toTensor().point_at(const_cast<void*>(data));
}

void* Method::input_data(size_t index) const { return state_->input(index).toTensor().mutable_data_ptr(); }

bool Method::step() {
  State& s = *state_;
  if (s.next == s.calls.size()) return false;
  const Call& call = s.calls[s.next];
  if (call.kernel != nullptr) {
    s.call(call);
    ++s.next;
  } else {
    s.next = *call.arguments[0]->toTensor().const_data_ptr<bool>() ? s.next + 1 : s.calls.size();
  }
  return true;
}

void Method::restart() { state_->next = 0; }

Tensor Method::output(size_t index) const {
  return state_->values[static_cast<size_t>(state_->outputs[index])].toTensor();
}

std::vector<std::string> Method::buffer_names() const {
  std::vector<std::string> names;
  for (const Buffer& buffer : state_->buffers) names.push_back(buffer.name);
  return names;
}

Tensor Method::buffer(const std::string& name) {
  for (const Buffer& buffer : state_->buffers) {
    if (buffer.name == name) return state_->values[buffer.value].toTensor();
  }
  throw std::out_of_range(name);
}

}  // namespace profl
