// A row of device_profiles/data/operators.txt: what an operator takes and puts out, and whether an instruction keeps to
// it. A program whose instructions keep to their rows makes no kernel read or write outside of its arguments' tensors.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace profl {

// Bits, so that a parameter can take several.
enum class Element : uint8_t { float32 = 1, bfloat16 = 2, int64 = 4, boolean = 8 };

int64_t bytes_of(Element element);

// What stands in one place of an instruction's stack.
struct Argument {
  enum class Kind : uint8_t { none, integer, flag, number, integers, tensor };

  Kind kind = Kind::none;
  Element element = Element::float32;
  int64_t integer = 0;  // of an integer, or a flag as 0 or 1
  double number = 0;
  std::vector<int64_t> items;  // the integers, or the sizes of a tensor
  int64_t elements = 0;        // of a tensor
};

// An integer expression over the symbols of a row, in postfix order.
struct Expression {
  struct Step {
    char what;  // n number, s symbol, + - * / %, m minimum; p t e r c of a parameter: see `evaluate`
    int32_t operand;
  };
  std::vector<Step> steps;

  // The number of the symbol that this is and nothing else, or -1.
  int symbol() const { return steps.size() == 1 && steps[0].what == 's' ? steps[0].operand : -1; }
};

struct Extent {
  enum class Kind : uint8_t { one, maybe, rest };  // `maybe` is left out by tensors of fewer dimensions: 1 then
  Kind kind = Kind::one;
  bool any = false;  // a rest of any product
  Expression value;
};

struct Parameter {
  enum class Presence : uint8_t { required, nullable, omittable, repeated };

  std::string_view name, text;  // text: as the table writes it
  Argument::Kind kind = Argument::Kind::none;
  Presence presence = Presence::required;
  bool output = false;
  uint8_t elements = 0;          // bits of Element
  bool shaped = false;           // whether extents, or symbols of integers, are listed
  std::vector<Extent> extents;   // of a tensor
  std::vector<int32_t> symbols;  // that an integer, a flag or integers give values to
  double low = 0, high = 0;      // of numbers and integers
  bool bounded = false;
};

struct Rule {
  std::string_view text, comparison;  // comparison: empty for a check by name
  Expression left, right;
  std::vector<int32_t> parameters;  // of a check by name
};

struct OperatorRow {
  std::string_view name;
  std::vector<Parameter> parameters;
  std::vector<Rule> rules;
  std::vector<std::string_view> symbols;

  // Throws std::invalid_argument for a name without a row, std::logic_error where the table itself is wrong.
  explicit OperatorRow(std::string_view operator_name);

  // What of the arguments, outputs included, does not keep to the row; empty if all does.
  std::string violation(const std::vector<const Argument*>& stack) const;
};

// The names of all rows.
std::vector<std::string_view> operator_names();

struct OperatorLimits {
  int64_t rank, elements;
};
OperatorLimits operator_limits();

// The table itself, compiled in.
extern const char* const kOperatorTable;

}  // namespace profl
