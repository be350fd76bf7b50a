#include "runner/files/json_text.h"

#include <charconv>
#include <cstdio>
#include <cstdlib>

namespace profl {
namespace {

constexpr int kFirstExponent = -4, kLastExponent = 15;  // of numbers that are written without one

std::string escaped(char letter) {
  switch (letter) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      break;
  }
  if (static_cast<unsigned char>(letter) >= 0x20) return {letter};
  char code[8];
  std::snprintf(code, sizeof(code), "\\u%04x", static_cast<unsigned>(letter));
  return code;
}

}  // namespace

std::string json_text(std::string_view text) {
  std::string written = "\"";
  for (const char letter : text) written += escaped(letter);
  return written + '"';
}

std::string json_number(double value) {
  char buffer[64];
  const auto whole = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  const std::string scientific(buffer, whole.ptr);
  const int exponent = std::atoi(scientific.c_str() + scientific.find('e') + 1);
  if (exponent < kFirstExponent || exponent > kLastExponent) return scientific;
  const auto fixed = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed);
  const std::string written(buffer, fixed.ptr);
  return written.find('.') == std::string::npos ? written + ".0" : written;
}

}  // namespace profl
