// What is in a `.pte`, read and checked as a whole before anything else sees it: ExecuTorch trusts a file further than
// a file from a stranger may be trusted, and our own engine trusts what was checked here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "operators/operator_row.h"

namespace profl {

constexpr char kNamespace[] = "profl::";  // of every operator
constexpr size_t kLongestName = 1024;     // of a tensor, or of an operator as it is shown

struct FileValue {
  static constexpr int64_t kOutside = -1;

  Argument argument;
  int64_t offset = kOutside;  // of a tensor in the arena
  std::string name;           // of a mutable buffer
};

struct FileInstruction {
  static constexpr int32_t kJump = -1;

  int32_t operation;               // an index of `operators`, or kJump: to the end, unless its argument is true
  std::vector<int32_t> arguments;  // indices of `values`
};

struct ProgramFile {
  std::vector<FileValue> values;
  std::vector<int32_t> inputs, outputs;
  std::vector<std::string> operators;  // without namespace and overload
  std::vector<FileInstruction> instructions;
  uint64_t arena_bytes = 0;

  // Reads a program; throws BrokenFile where it is none, or has what the exporter never writes: delegates, constants,
  // segments, dynamic shapes, tensors outside of the arena, jumps to anywhere but the end.
  static ProgramFile read(const uint8_t* data, size_t size);

  // Holds every instruction against its operator's row; throws BrokenFile with the first that does not keep to it, and
  // MissingOperator for one that has no row.
  void check() const;

  // The instructions that take an input of the program.
  std::vector<size_t> uses(size_t input) const;
};

class MissingOperator {
 public:
  explicit MissingOperator(std::string name) : name_(std::move(name)) {}
  const std::string& name() const { return name_; }

 private:
  std::string name_;
};

}  // namespace profl
