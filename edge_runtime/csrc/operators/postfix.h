// The instructions of expressions, in postfix order. Part of the programs' format: device_profiles/postfix.py has the
// same.
#pragma once

#include <cstdint>

namespace profl {

constexpr int kPostfixDepth = 8;     // values that wait at the most
constexpr int kPostfixLength = 64;   // instructions
constexpr int kPostfixBits = 8;      // of an instruction; above them is the operand's place, or a float's bits
constexpr int kPostfixOperands = 3;  // tensors

enum class Postfix : uint8_t {
  operand = 0,
  number = 1,
  add = 2,
  subtract = 3,
  multiply = 4,
  divide = 5,
  greater = 6,  // 1 or 0
  equal = 7,
  larger = 8,
  smaller = 9,
  power = 10,
  angle = 11,   // of (y, x): atan2
  choose = 12,  // of (condition, where true, where false)
  negate = 13,
  absolute = 14,
  exponential = 15,
  exponential_less_one = 16,
  logarithm = 17,
  logarithm_of_one_more = 18,
  square_root = 19,
  sine = 20,
  cosine = 21,
  tangent = 22,
  arcsine = 23,
  arccosine = 24,
  arctangent = 25,
  hyperbolic_sine = 26,
  hyperbolic_cosine = 27,
  hyperbolic_tangent = 28,
  area_sine = 29,  // the inverse functions of the three
  area_cosine = 30,
  area_tangent = 31,
  error = 32,
  error_left = 33,  // 1 less the error function
  floor = 34,
  round = 35,
};

constexpr int64_t kPostfixCount = 36;

inline Postfix postfix_of(int64_t word) { return static_cast<Postfix>(word & ((1 << kPostfixBits) - 1)); }
inline int64_t postfix_place(int64_t word) { return word >> kPostfixBits; }

// How many values an instruction takes from the stack, on which it puts one.
inline int postfix_operands(Postfix what) {
  if (what <= Postfix::number) return 0;
  if (what == Postfix::choose) return 3;
  return what < Postfix::choose ? 2 : 1;
}

}  // namespace profl
