// The words of the table of operators. What is taken is removed from the text.
#pragma once

#include <string_view>

namespace profl {

// Throws std::logic_error: the table itself is wrong.
[[noreturn]] void wrong(std::string_view line, const char* what);

bool is_letter(char c);
bool is_digit(char c);
std::string_view trimmed(std::string_view text);

// Takes a character behind spaces, if it is there.
bool take(std::string_view& text, char c);
// Takes what stands before `end`, which it takes as well.
std::string_view take_until(std::string_view& text, std::string_view end);
std::string_view take_word(std::string_view& text);
double number_of(std::string_view text);

// Lines without comments and empty ones.
class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(text) {}
  bool next(std::string_view* line);

 private:
  std::string_view rest_;
};

}  // namespace profl
