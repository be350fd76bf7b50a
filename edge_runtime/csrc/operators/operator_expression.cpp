#include "operators/operator_expression.h"

#include "operators/operator_text.h"

namespace profl {
namespace {

class ExpressionReader {
 public:
  explicit ExpressionReader(OperatorRow& row) : row_(row) {}

  Expression read(std::string_view text) {
    Expression e;
    sum(text, e);
    if (!trimmed(text).empty()) wrong(text, "behind the end of an expression");
    return e;
  }

 private:
  void sum(std::string_view& text, Expression& e) {
    product(text, e);
    for (;;) {
      const char sign = take(text, '+') ? '+' : take(text, '-') ? '-' : '\0';
      if (sign == '\0') return;
      product(text, e);
      e.steps.push_back({sign, 0});
    }
  }

  void product(std::string_view& text, Expression& e) {
    factor(text, e);
    for (;;) {
      const char sign = take(text, '*') ? '*' : take(text, '/') ? '/' : take(text, '%') ? '%' : '\0';
      if (sign == '\0') return;
      factor(text, e);
      e.steps.push_back({sign, 0});
    }
  }

  void factor(std::string_view& text, Expression& e) {
    if (take(text, '(')) {
      sum(text, e);
      if (!take(text, ')')) wrong(text, "a parenthesis is open");
      return;
    }
    size_t length = 0;
    while (length < text.size() && (is_letter(text[length]) || is_digit(text[length]))) ++length;
    const std::string_view word = text.substr(0, length);
    text.remove_prefix(length);
    if (word.empty()) wrong(text, "an expression is missing");
    if (is_digit(word.front())) {
      e.steps.push_back({'n', static_cast<int32_t>(number_of(word))});
    } else if (take(text, '(')) {
      function(word, text, e);
      if (!take(text, ')')) wrong(text, "a parenthesis is open");
    } else {
      e.steps.push_back({'s', symbol_of(word, row_)});
    }
  }

  void function(std::string_view name, std::string_view& text, Expression& e) {
    if (name == "min") {
      sum(text, e);
      if (!take(text, ',')) wrong(text, "min has two operands");
      sum(text, e);
      e.steps.push_back({'m', 0});
      return;
    }
    if (name != "present" && name != "type" && name != "elements" && name != "rank" && name != "count") {
      wrong(name, "no such function");
    }
    const std::string_view parameter = trimmed(text.substr(0, text.find(')')));
    text.remove_prefix(text.find(')'));
    e.steps.push_back({name.front(), parameter_of(parameter, row_)});
  }

  OperatorRow& row_;
};

}  // namespace

int32_t symbol_of(std::string_view name, OperatorRow& row) {
  for (size_t i = 0; i < row.symbols.size(); ++i) {
    if (row.symbols[i] == name) return static_cast<int32_t>(i);
  }
  row.symbols.push_back(name);
  return static_cast<int32_t>(row.symbols.size()) - 1;
}

int32_t parameter_of(std::string_view name, const OperatorRow& row) {
  for (size_t i = 0; i < row.parameters.size(); ++i) {
    if (row.parameters[i].name == name) return static_cast<int32_t>(i);
  }
  wrong(name, "no such parameter");
}

Expression read_expression(std::string_view text, OperatorRow& row) { return ExpressionReader(row).read(text); }

}  // namespace profl
