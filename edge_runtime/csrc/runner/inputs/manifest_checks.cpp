#include "runner/inputs/manifest_checks.h"

#include <algorithm>
#include <set>

#include "runner/files/failure.h"
#include "runner/inputs/manifest.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

constexpr int64_t kLargestCount = 2147483647;  // as in operators.txt
constexpr size_t kMostDimensions = 8;
constexpr int64_t kMostMicroBatches = 1 << 16;
constexpr uint64_t kAlignment = 64;  // of frozen tensors that stay in memory

void require(bool holds, const std::string& what) {
  if (!holds) refuse(what);
}

void check_count(int64_t value, const std::string& where) {
  require(value >= 1 && value <= kLargestCount, where + " is no count from 1 to " + std::to_string(kLargestCount));
}

void check_shape(const Shape& shape, const std::string& where) {
  require(shape.size() <= kMostDimensions, where + " has too many dimensions");
  int64_t left = kLargestCount;
  for (const int64_t extent : shape) {
    require(extent >= 1 && extent <= left, where + " has an extent or a number of elements that is not allowed");
    left /= extent;
  }
}

void check_values(const std::vector<ProgramValue>& values, const std::string& where) {
  std::set<std::string> names;
  for (const ProgramValue& value : values) {
    require(!value.name.empty() && names.insert(value.name).second,
            where + "'" + value.name + "' is there twice, or is empty");
    item_bytes(value.dtype, where + value.name);
    check_shape(value.shape, where + value.name + ": shape");
  }
}

void check_input(const ProgramValue& value, const ProgramManifest& program, const std::string& where) {
  if (value.role == "data") {
    require(!value.shape.empty() && value.shape[0] == program.micro_batch,
            where + "its first extent is not micro_batch");
  } else if (value.role == "label") {
    require(value.dtype == (program.loss == "mse" ? "float32" : "int64"), where + "labels do not suit the loss");
  } else if (value.role == "random") {
    require(value.dtype == "int64" && value.shape == Shape{2}, where + "must be int64 of shape 2");
  } else if (value.role == "frozen") {
    require(value.dtype == "float32" || value.dtype == "bfloat16",
            where + "frozen tensors must be float32 or bfloat16");
  } else {
    require(value.role == "hyperparameter", where + "its role is not known");
  }
  if (value.read_before.empty()) return;
  require(value.role == "frozen", where + "only frozen tensors are read before instructions");
  require(value.arena_offset >= 0 && value.bytes() <= program.memory.arena &&
              static_cast<uint64_t>(value.arena_offset) <= program.memory.arena - value.bytes(),
          where + "its place is outside of the arena");
  for (const int64_t at : value.read_before) {
    require(at >= 0 && at < program.instructions, where + "it is read before instructions that are not there");
  }
}

void check_memory(const ProgramManifest& program, const std::string& where) {
  require(program.memory.workspace_per_thread == kWorkspaceBytesPerThread,
          where + "workspace_bytes_per_thread is not the runtime's " + std::to_string(kWorkspaceBytesPerThread));
  uint64_t staging = 0, frozen = 0;
  for (const ProgramValue& value : program.inputs) {
    if (value.role == "data" || !value.read_before.empty()) continue;
    const uint64_t bytes = value.bytes();
    (value.role == "frozen" ? frozen : staging) +=
        value.role == "frozen" ? (bytes + kAlignment - 1) / kAlignment * kAlignment : bytes;
  }
  require(program.memory.staging == staging, where + "staging_bytes are not what the program's inputs take");
  require(program.memory.frozen == frozen, where + "frozen_bytes are not what the program's inputs take");
}

void check_optimizer(const ProgramManifest& program, const std::string& where) {
  const auto given = std::find_if(program.inputs.begin(), program.inputs.end(),
                                  [](const ProgramValue& value) { return value.role == "hyperparameter"; });
  const bool has = given != program.inputs.end();
  require(program.optimizer.has_value() == has, where + "has an optimizer or an input of hyperparameters alone");
  if (!has) return;
  const OptimizerSettings& optimizer = *program.optimizer;
  require(optimizer.name == "sgd" || optimizer.name == "adamw", where + "its optimizer is not known to this release");
  const bool apart = program.batch != program.micro_batch && !optimizer.sums_in_momentum();
  const int64_t count = 4 + optimizer.proximal + apart + program.counts_labels();
  require(given->dtype == "float32" && given->shape == Shape{count}, where + "hyperparameters are of another shape");
}

void check_program(const ProgramManifest& program, const Manifest& manifest, const std::string& where) {
  check_count(program.block, where + "block");
  check_count(program.batch, where + "batch");
  check_count(program.micro_batch, where + "micro_batch");
  check_count(program.instructions, where + "instructions");
  require(program.block <= static_cast<int64_t>(manifest.blocks.size()), where + "its block does not exist");
  require(program.batch % program.micro_batch == 0 && program.batch / program.micro_batch <= kMostMicroBatches,
          where + "batch and micro_batch do not fit");
  require(program.prefix_instructions >= 0 && program.prefix_instructions <= program.instructions,
          where + "prefix_instructions are not those of a program");
  check_values(program.inputs, where + "inputs: ");
  check_values(program.tensors, where + "tensors: ");
  std::set<std::string> roles;
  const int64_t labels = program.loss == "mse" ? manifest.classes : std::max<int64_t>(manifest.positions, 1);
  for (const ProgramValue& value : program.inputs) {
    check_input(value, program, where + "inputs: " + value.name + ": ");
    require(value.role != "label" || elements_of(value.shape) == program.micro_batch * labels,
            where + "its labels are not " + std::to_string(labels) + " for each example of an execution");
    require(value.role == "frozen" || roles.insert(value.role).second,
            where + "two inputs have the role " + value.role);
  }
  check_memory(program, where + "memory: ");
  check_optimizer(program, where);
}

}  // namespace

void check_manifest(const Manifest& manifest, const std::string& where) {
  check_shape(manifest.input_shape, where + ": model: input_shape");
  check_count(manifest.classes, where + ": model: classes");
  if (manifest.positions != 0) check_count(manifest.positions, where + ": model: positions");
  int64_t next = 0;
  for (size_t i = 0; i < manifest.blocks.size(); ++i) {
    const Manifest::Block& block = manifest.blocks[i];
    require(block.index == static_cast<int64_t>(i) + 1 && block.first_unit == next && block.last_unit >= next &&
                block.last_unit < static_cast<int64_t>(manifest.units.size()),
            where + ": partition: blocks do not cover the model in order");
    next = block.last_unit + 1;
  }
  require(next == static_cast<int64_t>(manifest.units.size()), where + ": partition: blocks do not cover the model");
  for (const auto& [path, file] : manifest.files) {
    const bool inside = !path.empty() && path[0] != '/' && ("/" + path + "/").find("/../") == std::string::npos;
    require(inside, where + ": files: path '" + path + "' leaves the bundle");
  }
  std::set<std::string> names;
  for (const ProgramManifest& program : manifest.programs) {
    const std::string place = where + ": programs: " + program.name + ": ";
    const bool usable = !program.name.empty() && program.name[0] != '.' && program.name.find('/') == std::string::npos;
    require(usable && names.insert(program.name).second, place + "is no name of a program, or there twice");
    check_program(program, manifest, place);
  }
}

}  // namespace profl
