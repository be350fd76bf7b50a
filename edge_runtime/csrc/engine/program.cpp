#include "engine/program.h"

#include <executorch/extension/data_loader/mmap_data_loader.h>
#include <executorch/runtime/core/hierarchical_allocator.h>
#include <executorch/runtime/executor/memory_manager.h>
#include <executorch/runtime/platform/platform.h>
#include <executorch/runtime/platform/runtime.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <optional>
#include <stdexcept>

#include "engine/flatbuffer.h"
#include "engine/piece_allocator.h"
#include "engine/program_file.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

using executorch::aten::TensorImpl;
using executorch::extension::MmapDataLoader;
using executorch::runtime::DataLoader;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::HierarchicalAllocator;
using executorch::runtime::MemoryManager;
using executorch::runtime::Method;
using executorch::runtime::MethodMeta;
using executorch::runtime::Result;
using executorch::runtime::Span;
using executorch::runtime::TensorInfo;

constexpr char kMethod[] = "forward";

[[noreturn]] void fail(const std::string& what, Error error) {
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

// Reads and checks the whole file, without ExecuTorch.
ProgramFile checked_file(const std::string& path, MmapDataLoader& loader) {
  const Result<size_t> size = loader.size();
  if (!size.ok()) fail(path + ": cannot be read", size.error());
  auto bytes = loader.load(0, *size, DataLoader::SegmentInfo(DataLoader::SegmentInfo::Type::Program));
  if (!bytes.ok()) fail(path + ": cannot be read", bytes.error());
  try {
    ProgramFile file = ProgramFile::read(static_cast<const uint8_t*>(bytes->data()), *size);
    file.check();
    return file;
  } catch (const BrokenFile& broken) {
    throw ProgramError(path + ": is not a program this runtime runs: " + broken.what() +
                       "; copy the bundle again, or export it with this release");
  } catch (const MissingOperator& missing) {
    throw ProgramError(path + ": needs the operator " + missing.name() +
                       ", which this release does not have; install the release that exported it, or export it again");
  }
}

// The arena is pages of zeros that take memory when they are used: one that never fits is refused before.
void check_fits_machine(const std::string& path, uint64_t bytes) {
  const uint64_t machine =
      static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  if (bytes <= machine) return;
  throw ProgramError(path + ": no memory for an arena of " + std::to_string(bytes) + " bytes; this machine has " +
                     std::to_string(machine));
}

}  // namespace

struct Program::State {
  std::string path;
  std::optional<MmapDataLoader> loader;
  std::optional<executorch::runtime::Program> program;
  PieceAllocator structures;
  std::vector<Span<uint8_t>> arenas;
  std::optional<HierarchicalAllocator> planned;
  std::optional<MemoryManager> manager;
  std::optional<Method> method;
  // Inputs are tensors of our own, so that the program keeps no copy of what they point at.
  struct Input {
    std::vector<TensorImpl::SizesType> sizes;
    std::vector<TensorImpl::DimOrderType> order;
    std::unique_ptr<TensorImpl> tensor;
  };
  std::vector<Input> inputs;
  struct Reading {
    size_t instruction;
    int file;
    int64_t offset;
    char* to;
    size_t bytes;
  };
  std::vector<Reading> readings;  // by instruction
  size_t arena_bytes = 0;
  size_t prefix_instructions = 0;
  size_t instructions = 0;
  std::vector<std::vector<size_t>> uses;  // of each input

  ~State() {
    method.reset();
    for (Span<uint8_t>& arena : arenas) munmap(arena.data(), arena.size());
  }

  MethodMeta meta() const { return *program->method_meta(kMethod); }

  // What is kept of the file: its values take more memory than ExecuTorch's.
  void read_file() {
    const ProgramFile file = checked_file(path, *loader);
    check_fits_machine(path, file.arena_bytes);
    instructions = file.instructions.size();
    for (size_t input = 0; input < file.inputs.size(); ++input) uses.push_back(file.uses(input));
    structures.limit_to_file(*loader->size());
  }

  void read(const Reading& reading) const {
    for (size_t done = 0; done < reading.bytes;) {
      const ssize_t count = pread(reading.file, reading.to + done, reading.bytes - done,
                                  static_cast<off_t>(reading.offset + static_cast<int64_t>(done)));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) {
        throw ProgramError(path + ": its weights cannot be read: " + (count == 0 ? "they end early" : strerror(errno)));
      }
      done += static_cast<size_t>(count);
    }
  }
};

Program::Program(const std::string& path, int threads, size_t prefix_instructions) : state_(new State) {
  start_runtime();
  State& s = *state_;
  s.path = path;
  s.prefix_instructions = prefix_instructions;
  Result<MmapDataLoader> loader = MmapDataLoader::from(path.c_str(), MmapDataLoader::MlockConfig::NoMlock);
  if (!loader.ok()) fail(path + ": cannot be opened", loader.error());
  s.loader.emplace(std::move(*loader));
  s.read_file();
  using Loaded = executorch::runtime::Program;
  Result<Loaded> program = Loaded::load(&*s.loader, Loaded::Verification::InternalConsistency);
  if (!program.ok()) fail(path + ": is not a program this runtime reads", program.error());
  s.program.emplace(std::move(*program));
  Result<MethodMeta> meta = s.program->method_meta(kMethod);
  if (!meta.ok()) fail(path + ": has no method 'forward'", meta.error());
  set_thread_count(threads);
  for (size_t i = 0; i < meta->num_memory_planned_buffers(); ++i) {
    const size_t size = static_cast<size_t>(*meta->memory_planned_buffer_size(i));
    const size_t mapped = size == 0 ? 4096 : size;
    void* memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      throw ProgramError(path + ": no memory for an arena of " + std::to_string(size) + " bytes");
    }
    s.arenas.emplace_back(static_cast<uint8_t*>(memory), mapped);
    s.arena_bytes += size;
  }
  s.planned.emplace(Span<Span<uint8_t>>(s.arenas.data(), s.arenas.size()));
  s.manager.emplace(&s.structures, &*s.planned);
  Result<Method> method = s.program->load_method(kMethod, &*s.manager);
  if (method.error() == Error::OperatorMissing) {
    throw ProgramError(path + ": needs the operator " + missing_operator +
                       ", which this release does not have; install the release that exported it, or export it again");
  }
  if (!method.ok()) fail(path + ": cannot be loaded; was it exported by another release?", method.error());
  s.method.emplace(std::move(*method));
  s.inputs.resize(meta->num_inputs());
}

Program::~Program() = default;

size_t Program::input_count() const { return state_->inputs.size(); }

size_t Program::output_count() const { return state_->method->outputs_size(); }

TensorInfo Program::input_info(size_t index) const { return *state_->meta().input_tensor_meta(index); }

void Program::set_input(size_t index, const void* data) {
  const TensorInfo info = input_info(index);
  State::Input& input = state_->inputs[index];
  input.sizes.assign(info.sizes().begin(), info.sizes().end());
  input.order.assign(info.dim_order().begin(), info.dim_order().end());
  input.tensor = std::make_unique<TensorImpl>(info.scalar_type(), static_cast<ssize_t>(input.sizes.size()),
                                              input.sizes.data(), const_cast<void*>(data), input.order.data());
  const Error error = state_->method->set_input(EValue(executorch::aten::Tensor(input.tensor.get())), index);
  if (error != Error::Ok) fail(state_->path + ": input " + std::to_string(index) + " was not accepted", error);
}

void Program::place_input(size_t index, size_t arena_offset) {
  State& s = *state_;
  const size_t bytes = input_info(index).nbytes();
  if (s.arenas.empty() || bytes > s.arena_bytes || arena_offset > s.arena_bytes - bytes) {
    throw std::out_of_range(s.path + ": input " + std::to_string(index) + " is placed outside of the arena");
  }
  if (arena_offset % sizeof(int64_t) != 0) {
    throw std::out_of_range(s.path + ": input " + std::to_string(index) + " is placed between elements of the arena");
  }
  set_input(index, s.arenas.front().data() + arena_offset);
}

void Program::read_before(size_t index, size_t instruction, int file, int64_t offset) {
  const auto later = [](size_t at, const State::Reading& other) { return at < other.instruction; };
  std::vector<State::Reading>& all = state_->readings;
  char* to = static_cast<char*>(state_->inputs[index].tensor->mutable_data());
  const State::Reading reading{instruction, file, offset, to, input_info(index).nbytes()};
  all.insert(std::upper_bound(all.begin(), all.end(), instruction, later), reading);
}

Seconds Program::execute(const std::function<void(size_t)>& before) {
  for (size_t i = 0; i < state_->inputs.size(); ++i) {
    if (state_->inputs[i].tensor == nullptr) {
      fail(state_->path + ": input " + std::to_string(i) + " was not set", Error::InvalidState);
    }
  }
  // Programs share the threads and their tile buffers.
  static std::mutex running;
  const std::lock_guard<std::mutex> alone(running);
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  Method& method = *state_->method;
  const Clock::time_point start = Clock::now();
  double prefix = 0;
  auto reading = state_->readings.cbegin();
  for (size_t instruction = 0;; ++instruction) {
    if (instruction == state_->prefix_instructions) prefix = instruction == 0 ? 0 : since(start);
    for (; reading != state_->readings.cend() && reading->instruction == instruction; ++reading) {
      state_->read(*reading);
    }
    if (before != nullptr && instruction < state_->instructions) before(instruction);
    const Error error = method.step();
    if (error == Error::EndOfMethod) break;
    if (error != Error::Ok) {
      (void)method.reset_execution();
      fail(state_->path + ": instruction " + std::to_string(instruction) + " failed", error);
    }
  }
  const Error error = method.reset_execution();
  if (error != Error::Ok) fail(state_->path + ": cannot be run again", error);
  return {since(start), prefix};
}

executorch::aten::Tensor Program::output(size_t index) const { return state_->method->get_output(index).toTensor(); }

std::vector<std::string> Program::buffer_names() const {
  std::vector<std::string> names;
  const MethodMeta meta = state_->meta();
  for (size_t i = 0; i < meta.num_attributes(); ++i) {
    names.emplace_back(meta.attribute_tensor_meta(i)->name());
  }
  return names;
}

executorch::aten::Tensor Program::buffer(const std::string& name) {
  auto tensor = state_->method->get_attribute(name);
  if (!tensor.ok()) throw std::out_of_range(name);
  return *tensor;
}

size_t Program::arena_bytes() const { return state_->arena_bytes; }

uint8_t* Program::arena() const { return state_->arenas.front().data(); }

size_t Program::instruction_count() const { return state_->instructions; }

const std::vector<size_t>& Program::input_uses(size_t index) const { return state_->uses[index]; }

}  // namespace profl
