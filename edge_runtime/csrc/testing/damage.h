// Damaged copies of a program: bytes at random, and numbers that mean something (a size, a place, an argument) replaced
// by others that could stand there.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "engine/flatbuffer.h"

namespace profl {

class Damage {
 public:
  using Random = std::mt19937_64;

  // Throws BrokenFile where the program cannot be read.
  explicit Damage(std::vector<uint8_t> program);

  std::vector<uint8_t> damaged(Random& random) const;

 private:
  enum class Kind { size, place, arena, integer, value, operation, number, type, length, other };
  struct Spot {
    uint64_t place;
    unsigned bytes;
    Kind kind;
  };

  void find(uint64_t place, unsigned bytes, Kind kind);
  void find_list(const Table& table, int field, unsigned bytes, Kind kind);
  void find_value(const Table& value);
  void find_instruction(const Table& instruction);

  int64_t read(const std::vector<uint8_t>& from, const Spot& spot) const;
  void write(std::vector<uint8_t>& to, const Spot& spot, int64_t value) const;
  void change_spot(std::vector<uint8_t>& program, Random& random) const;
  void change_sizes(std::vector<uint8_t>& program, Random& random) const;
  void change_bytes(std::vector<uint8_t>& program, Random& random) const;

  std::vector<uint8_t> program_;
  std::vector<Spot> spots_;
};

}  // namespace profl
