// Whether the arguments of an instruction keep to the row of its operator.
#include <algorithm>
#include <optional>

#include "operators/operator_row.h"
#include "operators/operator_shapes.h"

namespace profl {
namespace {

using Wide = __int128;
using Kind = Argument::Kind;
using Stack = std::vector<const Argument*>;

const Argument kNone;

std::string shown(const std::vector<int64_t>& items) {
  std::string text = "[";
  for (size_t i = 0; i < items.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(items[i]);
  return text + "]";
}

std::string shown(const Argument& a) {
  switch (a.kind) {
    case Kind::none:
      return "none";
    case Kind::integer:
      return std::to_string(a.integer);
    case Kind::flag:
      return a.integer != 0 ? "true" : "false";
    case Kind::number:
      return std::to_string(a.number);
    case Kind::integers:
      return shown(a.items);
    case Kind::tensor:
      break;
  }
  const char* type = a.element == Element::float32    ? "float32 "
                     : a.element == Element::bfloat16 ? "bfloat16 "
                     : a.element == Element::int64    ? "int64 "
                                                      : "bool ";
  return type + shown(a.items);
}

class Check {
 public:
  Check(const OperatorRow& row, const Stack& stack) : row_(row), stack_(stack), values_(row.symbols.size()) {}

  std::string run() {
    if (!assign()) {
      return "has " + std::to_string(stack_.size()) + " arguments and outputs, takes " +
             std::to_string(row_.parameters.size());
    }
    for (size_t i = 0; i < row_.parameters.size(); ++i) {
      for (size_t k = 0; k < places_[i].count; ++k) {
        const Argument& argument = *stack_[places_[i].first + k];
        if (!takes(row_.parameters[i], argument)) return differs(row_.parameters[i], argument);
      }
    }
    for (size_t i = 0; i < row_.parameters.size(); ++i) {
      for (size_t k = 0; k < places_[i].count; ++k) {
        const Argument& argument = *stack_[places_[i].first + k];
        if (!fits(row_.parameters[i], argument)) return differs(row_.parameters[i], argument);
      }
    }
    for (const Rule& rule : row_.rules) {
      if (!holds(rule)) return "does not keep to " + std::string(rule.text) + known();
    }
    return {};
  }

 private:
  struct Place {
    size_t first, count;
  };

  static std::string differs(const Parameter& p, const Argument& argument) {
    return std::string(p.name) + " is " + shown(argument) + ", takes " + std::string(p.text);
  }

  // The values of the symbols, for a message.
  std::string known() const {
    std::string text;
    for (size_t i = 0; i < values_.size(); ++i) {
      if (!values_[i]) continue;
      text += (text.empty() ? " (" : ", ") + std::string(row_.symbols[i]) + " " + std::to_string(*values_[i]);
    }
    return text.empty() ? text : text + ")";
  }

  // Which arguments belong to which parameter.
  bool assign() {
    size_t at = 0;
    const size_t parameters = row_.parameters.size();
    for (const Parameter& p : row_.parameters) {
      size_t count = 1;
      if (p.presence == Parameter::Presence::omittable && stack_.size() + 1 == parameters) count = 0;
      if (p.presence == Parameter::Presence::repeated) {
        if (stack_.size() < parameters) return false;
        count = stack_.size() + 1 - parameters;
      }
      places_.push_back({at, count});
      at += count;
    }
    return at == stack_.size();
  }

  const Argument& argument(int32_t parameter) const {
    const Place& place = places_[static_cast<size_t>(parameter)];
    return place.count == 0 ? kNone : *stack_[place.first];
  }

  bool bind(int32_t symbol, int64_t value) {
    std::optional<int64_t>& known = values_[static_cast<size_t>(symbol)];
    if (!known) known = value;
    return *known == value;
  }

  // Kind, type and range; gives symbols their values.
  bool takes(const Parameter& p, const Argument& a) {
    if (a.kind == Kind::none) return p.presence == Parameter::Presence::nullable;
    if (a.kind != p.kind) return false;
    switch (p.kind) {
      case Kind::none:
        return false;
      case Kind::tensor:
        return (p.elements & static_cast<uint8_t>(a.element)) != 0 && match(p, a, true);
      case Kind::number:
        return !p.bounded || (a.number >= p.low && a.number <= p.high);
      case Kind::integer:
      case Kind::flag:
        return in_range(p, a.integer) && (p.symbols.empty() || bind(p.symbols[0], a.integer));
      case Kind::integers:
        break;
    }
    if (p.shaped && a.items.size() != p.symbols.size()) return false;
    for (size_t i = 0; i < a.items.size(); ++i) {
      if (!in_range(p, a.items[i]) || (p.shaped && !bind(p.symbols[i], a.items[i]))) return false;
    }
    return true;
  }

  static bool in_range(const Parameter& p, int64_t value) {
    return !p.bounded || (value >= static_cast<int64_t>(p.low) && value <= static_cast<int64_t>(p.high));
  }

  bool fits(const Parameter& p, const Argument& a) { return a.kind != Kind::tensor || match(p, a, false); }

  // Holds the sizes of a tensor against the extents. `binding`: only gives symbols that stand alone their values.
  bool match(const Parameter& p, const Argument& a, bool binding) {
    size_t fixed = 0, maybe = 0;
    bool rest = false;
    for (const Extent& e : p.extents) {
      fixed += e.kind == Extent::Kind::one;
      maybe += e.kind == Extent::Kind::maybe;
      rest = rest || e.kind == Extent::Kind::rest;
    }
    const size_t rank = a.items.size();
    if (rank < fixed || (!rest && rank > fixed + maybe)) return false;
    const bool all = rank == fixed + maybe;
    size_t at = 0;
    for (const Extent& e : p.extents) {
      int64_t size = 1;
      if (e.kind == Extent::Kind::one || (e.kind == Extent::Kind::maybe && all)) size = a.items[at++];
      if (e.kind == Extent::Kind::rest) {
        for (size_t k = rank - fixed; k > 0; --k) size *= a.items[at++];
      }
      if (e.any) continue;
      const int symbol = e.value.symbol();
      if (binding) {
        if (symbol >= 0 && !bind(symbol, size)) return false;
      } else {
        const std::optional<Wide> wanted = evaluate(e.value);
        if (!wanted || *wanted != size) return false;
      }
    }
    return true;
  }

  // Nothing for a symbol without a value, a division by zero or an overflow: what asks for it does not hold then.
  std::optional<Wide> evaluate(const Expression& e) const {
    std::vector<Wide> stack;
    for (const Expression::Step& step : e.steps) {
      std::optional<Wide> value = operand(step);
      if (!value) {
        if (stack.size() < 2) return std::nullopt;
        const Wide right = stack.back();
        stack.pop_back();
        value = combined(step.what, stack.back(), right);
        stack.pop_back();
        if (!value) return std::nullopt;
      }
      stack.push_back(*value);
    }
    return stack.size() == 1 ? std::optional<Wide>(stack[0]) : std::nullopt;
  }

  std::optional<Wide> operand(const Expression::Step& step) const {
    switch (step.what) {
      case 'n':
        return step.operand;
      case 's':
        if (!values_[static_cast<size_t>(step.operand)]) return std::nullopt;
        return *values_[static_cast<size_t>(step.operand)];
      case 'p':
        return argument(step.operand).kind == Kind::none ? 0 : 1;
      case 't':
        return argument(step.operand).kind == Kind::none ? 0 : static_cast<int>(argument(step.operand).element);
      case 'e':
        return argument(step.operand).elements;
      case 'r':
      case 'c':
        return static_cast<int64_t>(argument(step.operand).items.size());
      default:
        return std::nullopt;
    }
  }

  static std::optional<Wide> combined(char what, Wide left, Wide right) {
    Wide result = 0;
    if ((what == '/' || what == '%') && right <= 0) return std::nullopt;
    switch (what) {
      case '+':
        return __builtin_add_overflow(left, right, &result) ? std::nullopt : std::optional<Wide>(result);
      case '-':
        return __builtin_sub_overflow(left, right, &result) ? std::nullopt : std::optional<Wide>(result);
      case '*':
        return __builtin_mul_overflow(left, right, &result) ? std::nullopt : std::optional<Wide>(result);
      case '/':
        return left / right;
      case '%':
        return left % right;
      case 'm':
        return std::min(left, right);
      default:
        return std::nullopt;
    }
  }

  bool holds(const Rule& rule) const {
    if (rule.comparison.empty()) return check_by_name(rule);
    const std::optional<Wide> left = evaluate(rule.left), right = evaluate(rule.right);
    if (!left || !right) return false;
    if (rule.comparison == "==") return *left == *right;
    if (rule.comparison == "!=") return *left != *right;
    if (rule.comparison == "<=") return *left <= *right;
    if (rule.comparison == ">=") return *left >= *right;
    return *left < *right;
  }

  bool check_by_name(const Rule& rule) const {
    const std::string_view name = rule.text.substr(0, rule.text.find('('));
    const auto at = [&](size_t i) -> const Argument& { return argument(rule.parameters[i]); };
    if (name == "broadcasts") return broadcasts(at(0), at(1));
    if (name == "permutes") return permutes(at(0), at(1), at(2));
    if (name == "is_expression") return is_expression(at(0), at(1), at(2), at(3));
    if (name == "strided") return strided(at(0), at(1), at(2), at(3));
    if (name == "concatenates") {
      const Place& parts = places_[static_cast<size_t>(rule.parameters[1])];
      return concatenates(at(0), stack_.data() + parts.first, parts.count, at(2));
    }
    return false;
  }

  const OperatorRow& row_;
  const Stack& stack_;
  std::vector<std::optional<int64_t>> values_;
  std::vector<Place> places_;
};

}  // namespace

std::string OperatorRow::violation(const Stack& stack) const { return Check(*this, stack).run(); }

}  // namespace profl
