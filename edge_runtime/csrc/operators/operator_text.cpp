#include "operators/operator_text.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace profl {

void wrong(std::string_view line, const char* what) {
  throw std::logic_error("operators.txt: '" + std::string(line) + "': " + what);
}

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

bool take(std::string_view& text, char c) {
  text = trimmed(text);
  if (text.empty() || text.front() != c) return false;
  text.remove_prefix(1);
  return true;
}

std::string_view take_until(std::string_view& text, std::string_view end) {
  const size_t at = text.find(end);
  const std::string_view taken = text.substr(0, at);
  text = at == std::string_view::npos ? std::string_view() : text.substr(at + end.size());
  return taken;
}

std::string_view take_word(std::string_view& text) {
  text = trimmed(text);
  return take_until(text, " ");
}

double number_of(std::string_view text) { return std::strtod(std::string(text).c_str(), nullptr); }

bool Lines::next(std::string_view* line) {
  while (!rest_.empty()) {
    *line = take_until(rest_, "\n");
    if (!trimmed(*line).empty() && line->front() != '#') return true;
  }
  return false;
}

}  // namespace profl
