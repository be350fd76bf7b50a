// The instructions of a program that was checked, ready to run: by ExecuTorch (executorch_method.cpp), or in a build
// without it by a loop of our own (own_method.cpp). Tests hold the two against each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/mapped_file.h"
#include "engine/program_file.h"
#include "values/values.h"

namespace profl {

class Method {
 public:
  // The arena, of `file.arena_bytes`, outlives it; `bytes` are those that `file` was read from. Throws ProgramError.
  Method(std::string path, const ProgramFile& file, std::unique_ptr<const MappedFile> bytes, uint8_t* arena);
  ~Method();
  Method(const Method&) = delete;
  Method& operator=(const Method&) = delete;

  size_t input_count() const;
  size_t output_count() const;
  Tensor input_info(size_t index) const;
  // Points an input at `data`.
  void set_input(size_t index, const void* data);
  // Where an input points; null before it was set.
  void* input_data(size_t index) const;
  // Runs the next instruction; false behind the last. Throws ProgramError, and starts anew then.
  bool step();
  // Starts anew.
  void restart();
  Tensor output(size_t index) const;
  std::vector<std::string> buffer_names() const;
  // Throws std::out_of_range.
  Tensor buffer(const std::string& name);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace profl
