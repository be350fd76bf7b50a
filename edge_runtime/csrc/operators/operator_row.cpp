// Reading rows of the table of operators.
#include "operators/operator_row.h"

#include <stdexcept>

#include "operators/operator_expression.h"
#include "operators/operator_text.h"

namespace profl {
namespace {

class RowReader {
 public:
  explicit RowReader(OperatorRow& row) : row_(row) {}

  // Reads the lines behind `title`, up to the next title.
  bool read(const std::string& title) {
    const std::string_view table = kOperatorTable;
    const size_t at = table.find("\n" + title + "\n");
    if (at == std::string_view::npos) return false;
    Lines lines(table.substr(at + title.size() + 2));
    for (std::string_view line; lines.next(&line) && line.front() == ' ';) read_line(trimmed(line));
    return true;
  }

  void finish() {
    for (std::string_view text : rules_) row_.rules.push_back(rule(text));
  }

 private:
  void read_line(std::string_view line) {
    std::string_view rest = line;
    const std::string_view first = take_word(rest);
    if (first == "use") {
      const std::string title = "group " + std::string(trimmed(rest));
      if (!read(title)) wrong(line, "there is no such group");
    } else if (line.find_first_of("=<>!") != std::string_view::npos && first != "->") {
      rules_.push_back(line);
    } else if (first.find('(') != std::string_view::npos) {
      rules_.push_back(line);
    } else if (first == "->") {
      parameter(rest, true);
    } else {
      parameter(line, false);
    }
  }

  void parameter(std::string_view line, bool output) {
    Parameter p;
    p.output = output;
    p.name = take_word(line);
    p.text = line = trimmed(line);
    std::string_view type = take_word(line);
    if (type == "int" || type == "flag" || type == "ints" || type == "number") {
      p.kind = type == "int"    ? Argument::Kind::integer
               : type == "flag" ? Argument::Kind::flag
               : type == "ints" ? Argument::Kind::integers
                                : Argument::Kind::number;
      numbers(line, p);
    } else {
      p.kind = Argument::Kind::tensor;
      tensor(type, trimmed(line), p);
    }
    row_.parameters.push_back(std::move(p));
  }

  void numbers(std::string_view line, Parameter& p) {
    line = trimmed(line);
    if (!line.empty() && line.front() == '[') {
      p.shaped = true;
      line.remove_prefix(1);
      std::string_view list = take_until(line, "]");
      while (!list.empty()) p.symbols.push_back(symbol_of(trimmed(take_until(list, ",")), row_));
    } else if (!line.empty() && is_letter(line.front())) {
      p.symbols.push_back(symbol_of(take_word(line), row_));
    }
    line = trimmed(line);
    if (line.empty()) return;
    p.bounded = true;
    p.low = number_of(take_until(line, ".."));
    p.high = number_of(line);
  }

  void tensor(std::string_view type, std::string_view shape, Parameter& p) {
    const auto ends = [&](std::string_view suffix, Parameter::Presence presence) {
      if (type.size() <= suffix.size() || type.substr(type.size() - suffix.size()) != suffix) return;
      type.remove_suffix(suffix.size());
      p.presence = presence;
    };
    ends("?", Parameter::Presence::nullable);
    ends("~", Parameter::Presence::omittable);
    ends("...", Parameter::Presence::repeated);
    while (!type.empty()) {
      const std::string_view name = take_until(type, "|");
      const Element element = name == "float32"    ? Element::float32
                              : name == "bfloat16" ? Element::bfloat16
                              : name == "int64"    ? Element::int64
                              : name == "bool"     ? Element::boolean
                                                   : static_cast<Element>(0);
      if (element == static_cast<Element>(0)) wrong(p.text, "an unknown type");
      p.elements = static_cast<uint8_t>(p.elements | static_cast<uint8_t>(element));
    }
    if (shape.size() < 2 || shape.front() != '[' || shape.back() != ']') wrong(p.text, "a tensor has a shape");
    shape = shape.substr(1, shape.size() - 2);
    p.shaped = true;
    while (!shape.empty()) p.extents.push_back(extent(trimmed(take_until(shape, ","))));
  }

  Extent extent(std::string_view text) {
    Extent e;
    if (!text.empty() && text.front() == '*') {
      e.kind = Extent::Kind::rest;
      text.remove_prefix(1);
      e.any = text.empty();
    } else if (!text.empty() && text.back() == '?') {
      e.kind = Extent::Kind::maybe;
      text.remove_suffix(1);
    }
    if (!e.any) e.value = read_expression(text, row_);
    return e;
  }

  Rule rule(std::string_view text) {
    Rule r;
    r.text = text;
    for (std::string_view comparison : {"==", "!=", "<=", ">=", "<"}) {
      const size_t at = text.find(comparison);
      if (at == std::string_view::npos) continue;
      r.comparison = comparison;
      r.left = read_expression(text.substr(0, at), row_);
      r.right = read_expression(text.substr(at + comparison.size()), row_);
      return r;
    }
    std::string_view list = text;
    take_until(list, "(");
    list = take_until(list, ")");
    while (!list.empty()) r.parameters.push_back(parameter_of(trimmed(take_until(list, ",")), row_));
    return r;
  }

  OperatorRow& row_;
  std::vector<std::string_view> rules_;  // read when all parameters are known
};

bool is_title(std::string_view line) { return line.front() != ' ' && line.find(' ') == std::string_view::npos; }

}  // namespace

int64_t bytes_of(Element element) {
  switch (element) {
    case Element::float32:
      return 4;
    case Element::bfloat16:
      return 2;
    case Element::int64:
      return 8;
    case Element::boolean:
      return 1;
  }
  return 0;
}

OperatorRow::OperatorRow(std::string_view operator_name) : name(operator_name) {
  RowReader reader(*this);
  if (name.find(' ') != std::string_view::npos || !reader.read(std::string(name)))
    throw std::invalid_argument(std::string(name));
  reader.finish();
}

std::vector<std::string_view> operator_names() {
  std::vector<std::string_view> names;
  Lines lines(kOperatorTable);
  for (std::string_view line; lines.next(&line);) {
    if (is_title(line)) names.push_back(line);
  }
  return names;
}

OperatorLimits operator_limits() {
  OperatorLimits limits{};
  Lines lines(kOperatorTable);
  for (std::string_view line; lines.next(&line);) {
    if (take_word(line) != "limit") continue;
    const std::string_view name = take_word(line);
    (name == "rank" ? limits.rank : limits.elements) = static_cast<int64_t>(number_of(line));
  }
  return limits;
}

}  // namespace profl
