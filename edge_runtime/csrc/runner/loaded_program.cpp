#include "runner/loaded_program.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <set>
#include <stdexcept>

#include "device/process.h"
#include "runner/files/failure.h"
#include "runner/limits/memory_groups.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

constexpr uint64_t kAlignment = 64;
constexpr uint64_t kVariation = 512 << 10;  // device_profiles/promise.py
constexpr double kMegabyte = 1 << 20;

ScalarType type_of(const std::string& dtype) {
  return dtype == "int64" ? ScalarType::Long : dtype == "bfloat16" ? ScalarType::BFloat16 : ScalarType::Float;
}

bool fits(const Tensor& tensor, const ProgramValue& value) {
  return tensor.scalar_type() == type_of(value.dtype) &&
         std::equal(tensor.sizes().begin(), tensor.sizes().end(), value.shape.begin(), value.shape.end());
}

uint64_t aligned(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

// What the engine throws as an error of one line.
template <typename Work>
auto LoadedProgram::translated(const Work& work) const {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    fail(manifest_.name + ": no memory left; give it more, or export a smaller batch");
  } catch (const std::out_of_range& error) {
    refuse(manifest_.name + ": " + error.what());
  } catch (const std::exception& error) {
    std::string text = error.what();
    if (text.find("worker thread") != std::string::npos) {
      text += "; give fewer --threads, or allow more processes (ulimit -u, pids.max)";
    }
    fail(manifest_.name + ": " + text);
  }
}

LoadedProgram::LoadedProgram(const ProgramManifest& program, const std::string& path, const LaidWeights& weights,
                             int threads)
    : manifest_(program) {
  release_unused_pages();
  translated(
      [&] { program_ = std::make_unique<Program>(path, threads, static_cast<size_t>(program.prefix_instructions)); });
  check_sizes(path);
  check_buffers(path);
  check_inputs(path);
  translated([&] { set_inputs(weights); });
}

LoadedProgram::~LoadedProgram() {
  if (frozen_ != nullptr) munmap(frozen_, manifest_.memory.frozen);
}

void LoadedProgram::check_sizes(const std::string& path) const {
  if (program_->arena_bytes() != manifest_.memory.arena) {
    refuse(path + ": its arena has " + std::to_string(program_->arena_bytes()) + " bytes, the manifest states " +
           std::to_string(manifest_.memory.arena));
  }
  if (program_->instruction_count() != static_cast<size_t>(manifest_.instructions)) {
    refuse(path + ": has " + std::to_string(program_->instruction_count()) + " instructions, the manifest states " +
           std::to_string(manifest_.instructions));
  }
}

void LoadedProgram::check_buffers(const std::string& path) {
  const std::vector<std::string> names = program_->buffer_names();
  std::set<std::string> held(names.begin(), names.end());
  std::vector<const ProgramValue*> listed;
  for (const ProgramValue& tensor : manifest_.tensors) listed.push_back(&tensor);
  for (const ProgramValue& value : manifest_.inputs) {
    if (value.role != "data") continue;
    listed.push_back(&value);
    data_ = value.name;
  }
  if (data_.empty()) refuse(path + ": takes no images");
  for (const ProgramValue* value : listed) {
    if (held.erase(value->name) == 0) refuse(path + ": its buffers and the manifest's tensors differ: " + value->name);
    if (!fits(program_->buffer(value->name), *value)) {
      refuse(path + ": buffer '" + value->name + "' is not what the manifest lists");
    }
  }
  if (!held.empty()) refuse(path + ": its buffers and the manifest's tensors differ: " + *held.begin());
}

void LoadedProgram::check_inputs(const std::string& path) const {
  size_t index = 0;
  for (const ProgramValue& value : manifest_.inputs) {
    if (value.role == "data") continue;
    if (index >= program_->input_count() || !fits(program_->input_info(index), value)) {
      refuse(path + ": input '" + value.name + "' is not what the manifest lists");
    }
    const std::vector<size_t>& uses = program_->input_uses(index++);
    if (!value.read_before.empty() &&
        !std::equal(uses.begin(), uses.end(), value.read_before.begin(), value.read_before.end(),
                    [](size_t a, int64_t b) { return static_cast<int64_t>(a) == b; })) {
      refuse(path + ": input '" + value.name + "' is read before other instructions than those that take it");
    }
  }
  if (index != program_->input_count()) refuse(path + ": takes other inputs than the manifest lists");
}

// Frozen tensors that stay, in memory of their own that is not touched before they are read.
void LoadedProgram::map_frozen() {
  if (manifest_.memory.frozen == 0) return;
  void* memory = mmap(nullptr, manifest_.memory.frozen, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  frozen_ = static_cast<char*>(memory);
}

void LoadedProgram::set_inputs(const LaidWeights& weights) {
  map_frozen();
  uint64_t offset = 0;
  size_t index = 0;
  for (const ProgramValue& value : manifest_.inputs) {
    if (value.role == "data") continue;
    if (value.role == "frozen") {
      const Source source = weights.source(value);
      if (value.read_before.empty()) {
        program_->set_input(index, frozen_ + offset);
        readings_.push_back({"tensor '" + value.name + "'", source, frozen_ + offset});
        offset += aligned(value.bytes());
      } else {
        program_->place_input(index, static_cast<size_t>(value.arena_offset));
        files_.push_back(source.file);
        for (const int64_t at : value.read_before) {
          program_->read_before(index, static_cast<size_t>(at), source.file->number(),
                                static_cast<int64_t>(source.offset));
        }
      }
    } else if (value.role == "label") {
      labels_.resize(value.bytes());
      program_->set_input(index, labels_.data());
    } else if (value.role == "hyperparameter") {
      hyperparameters_.resize(static_cast<size_t>(value.shape[0]));
      program_->set_input(index, hyperparameters_.data());
    } else {
      random_.resize(static_cast<size_t>(value.shape[0]));
      program_->set_input(index, random_.data());
    }
    ++index;
  }
  for (const ProgramValue& tensor : manifest_.tensors) {
    if (!is_trained(tensor.role)) continue;
    const Source source = weights.source(tensor);
    readings_.push_back({"tensor '" + tensor.name + "'", source, program_->buffer(tensor.name).mutable_data_ptr()});
  }
}

void LoadedProgram::check_limit(uint64_t bytes, const std::string& name) const {
  if (predicted_bytes - kVariation <= bytes) return;
  char text[96];
  const double tenths = static_cast<double>((predicted_bytes * 10 + (1 << 20) - 1) / (1 << 20)) / 10;
  std::snprintf(text, sizeof(text), " %.1fMB is below the %.1f MB that ", static_cast<double>(bytes) / kMegabyte,
                tenths);
  refuse(name + text + manifest_.name + " needs; raise the limit, or export a smaller batch or block");
}

void LoadedProgram::promise(const std::function<void()>& rehearse, std::optional<uint64_t> asked, const OwnGroup* group,
                            int threads) {
  release_workspace();
  release_unused_pages();
  load_kernels();
  rehearse();
  const Resident resident = resident_bytes();
  base_bytes = resident.now + kVariation;
  // What start-up itself needed at its peak is more than a very small program ever will.
  predicted_bytes = std::max(uint64_t{resident.peak} + kVariation, base_bytes + manifest_.memory.total(threads));
  if (const std::optional<GroupLimit> outside = group_limit()) {
    limit_bytes = outside->bytes;
    limit_kind = outside->kind;
    check_limit(outside->bytes, outside->name());
  }
  if (!asked) return;
  check_limit(*asked, "--memory-limit");
  const rlimit both{*asked, *asked};
  const bool set = group != nullptr ? group->limit(*asked) : setrlimit(RLIMIT_DATA, &both) == 0;
  if (!set) fail(std::string("the limit cannot be set: ") + std::strerror(errno));
  if (limit_bytes && *limit_bytes < *asked) return;
  limit_bytes = asked;
  limit_kind = group != nullptr ? group->kind : "rlimit";
}

void LoadedProgram::read(const Reading& reading) {
  if (!reading.source.file->fill(reading.to, reading.source.bytes, reading.source.offset)) {
    refuse(reading.source.file->path() + ": " + reading.what + " ends early");
  }
}

void LoadedProgram::load_tensors() {
  for (const Reading& reading : readings_) read(reading);
  readings_.clear();
  release_unused_pages();
}

void LoadedProgram::set_hyperparameters(const std::vector<float>& values) {
  std::copy(values.begin(), values.end(), hyperparameters_.begin());
}

void LoadedProgram::set_random(int64_t seed, int64_t execution) {
  if (random_.empty()) return;
  random_[0] = seed;
  random_[1] = execution;
}

Seconds LoadedProgram::execute() {
  return translated([&] { return program_->execute(); });
}

const float* LoadedProgram::outputs(size_t count) {
  const Tensor output = program_->output(0);
  if (output.scalar_type() != ScalarType::Float || output.numel() != static_cast<ssize_t>(count)) {
    refuse(manifest_.name + ": does not put out " + std::to_string(count) + " numbers; export the bundle again");
  }
  return output.const_data_ptr<float>();
}

std::vector<TensorView> LoadedProgram::tensors(const std::function<bool(const ProgramValue&)>& wanted) {
  std::vector<TensorView> views;
  for (const ProgramValue& value : manifest_.tensors) {
    if (wanted(value))
      views.push_back({value.name, value.dtype, value.shape, program_->buffer(value.name).const_data_ptr()});
  }
  return views;
}

std::vector<TensorView> LoadedProgram::trained_tensors() {
  return tensors([](const ProgramValue& value) { return is_trained(value.role); });
}

std::vector<TensorView> LoadedProgram::state_tensors() {
  return tensors([](const ProgramValue& value) { return value.role != "gradient_sum"; });
}

void LoadedProgram::read_state(const TensorFile& checkpoint) {
  for (const ProgramValue& value : manifest_.tensors) {
    if (value.role == "gradient_sum") continue;
    checkpoint.check(value.name, value.dtype, value.shape);
    read({"tensor '" + value.name + "'", checkpoint.source(value.name),
          program_->buffer(value.name).mutable_data_ptr()});
  }
}

}  // namespace profl
