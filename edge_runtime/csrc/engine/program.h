// One training step loaded from a .pte, with its arena.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/program_error.h"
#include "values/values.h"

namespace profl {

struct Seconds {
  double total, prefix;
};

// Experimental: not thread-safe; one execute() at a time.
class Program {
 public:
  // Loads a program that may come from a stranger: every instruction is held against its operator's row before
  // anything runs, so that no kernel touches a byte outside of its arguments.
  Program(const std::string& path, int threads, size_t prefix_instructions);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  size_t input_count() const;
  size_t output_count() const;
  Tensor input_info(size_t index) const;
  // Points input `index` at `data`, which the caller keeps alive.
  void set_input(size_t index, const void* data);
  // Points input `index` into the arena; throws std::out_of_range where it would not be inside.
  void place_input(size_t index, size_t arena_offset);
  // Before every execution of `instruction`, input `index`, which was placed in the arena, is read from `offset` of an
  // open file: frozen weights take memory only while they are needed.
  void read_before(size_t index, size_t instruction, int file, int64_t offset);
  // One execution of all instructions. `before` is told the number of each before it runs.
  Seconds execute(const std::function<void(size_t)>& before = nullptr);
  Tensor output(size_t index) const;
  std::vector<std::string> buffer_names() const;
  // Mutable buffer by name; throws std::out_of_range.
  Tensor buffer(const std::string& name);
  size_t arena_bytes() const;
  uint8_t* arena() const;
  size_t instruction_count() const;
  // The instructions that take input `index`, in their order.
  const std::vector<size_t>& input_uses(size_t index) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace profl
