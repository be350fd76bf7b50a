#include "runner/files/json_reader.h"

#include <charconv>
#include <cstdlib>

#include "runner/files/failure.h"

namespace profl {
namespace {

constexpr char kSpace[] = " \t\r\n";

void append_utf8(unsigned code, std::string& to) {
  const auto byte = [&to](unsigned bits) { to += static_cast<char>(bits); };
  if (code < 0x80) return byte(code);
  if (code < 0x800) {
    byte(0xC0 | code >> 6);
  } else if (code < 0x10000) {
    byte(0xE0 | code >> 12);
    byte(0x80 | (code >> 6 & 0x3F));
  } else {
    byte(0xF0 | code >> 18);
    byte(0x80 | (code >> 12 & 0x3F));
    byte(0x80 | (code >> 6 & 0x3F));
  }
  byte(0x80 | (code & 0x3F));
}

}  // namespace

void JsonReader::broken(const std::string& what) const { refuse(where_ + ": " + what); }

void JsonReader::unknown(const std::string& key) const {
  broken("field '" + key + "' is not known to this release; use the release that wrote it");
}

void JsonReader::skip_space() {
  while (at_ < text_.size() && std::string_view(kSpace).find(text_[at_]) != std::string_view::npos) ++at_;
}

bool JsonReader::take(char wanted) {
  skip_space();
  if (at_ >= text_.size() || text_[at_] != wanted) return false;
  ++at_;
  return true;
}

void JsonReader::expect(char wanted) {
  if (!take(wanted)) broken(std::string("is no JSON of the kind that is read here: '") + wanted + "' is missing");
}

bool JsonReader::take_word(std::string_view word) {
  skip_space();
  if (text_.substr(at_, word.size()) != word) return false;
  at_ += word.size();
  return true;
}

std::string JsonReader::text() {
  expect('"');
  std::string value;
  while (at_ < text_.size() && text_[at_] != '"') {
    if (text_[at_] != '\\') {
      value += text_[at_++];
      continue;
    }
    ++at_;
    escape(value);
  }
  if (at_ >= text_.size()) broken("ends inside of a text");
  ++at_;
  return value;
}

void JsonReader::escape(std::string& to) {
  constexpr std::string_view kShort = "\"\\/bfnrt", kMeant = "\"\\/\b\f\n\r\t";
  const char letter = at_ < text_.size() ? text_[at_++] : '\0';
  const size_t known = kShort.find(letter);
  if (letter != '\0' && known != std::string_view::npos) {
    to += kMeant[known];
    return;
  }
  if (letter != 'u') broken("a text has an escape that JSON does not know");
  unsigned code = four_digits();
  if (code >= 0xD800 && code < 0xDC00 && text_.substr(at_, 2) == "\\u") {
    at_ += 2;
    code = 0x10000 + ((code - 0xD800) << 10) + ((four_digits() - 0xDC00) & 0x3FF);
  }
  append_utf8(code, to);
}

unsigned JsonReader::four_digits() {
  unsigned code = 0;
  const std::string_view digits = text_.substr(at_, 4);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
  if (error != std::errc() || digits.size() != 4 || end != digits.data() + 4) broken("a text has a damaged escape");
  at_ += 4;
  return code;
}

std::string_view JsonReader::number_text() {
  skip_space();
  const size_t end = text_.find_first_not_of("+-.0123456789eE", at_);
  const std::string_view found = text_.substr(at_, end == std::string_view::npos ? end : end - at_);
  at_ += found.size();
  return found;
}

int64_t JsonReader::integer() {
  const std::string_view found = number_text();
  int64_t value = 0;
  const auto [end, error] = std::from_chars(found.data(), found.data() + found.size(), value);
  if (found.empty() || error != std::errc() || end != found.data() + found.size()) broken("a whole number is missing");
  return value;
}

double JsonReader::number() {
  const std::string found(number_text());
  char* end = nullptr;
  const double value = std::strtod(found.c_str(), &end);
  if (found.empty() || *end != '\0') broken("a number is missing");
  return value;
}

bool JsonReader::flag() {
  if (take_word("true")) return true;
  if (take_word("false")) return false;
  broken("true or false is missing");
}

bool JsonReader::null() { return take_word("null"); }

std::vector<int64_t> JsonReader::integers() {
  std::vector<int64_t> values;
  array([&] { values.push_back(integer()); });
  return values;
}

std::string_view JsonReader::raw() {
  skip_space();
  const size_t start = at_;
  size_t depth = 0;
  bool quoted = false;
  for (; at_ < text_.size(); ++at_) {
    const char letter = text_[at_];
    if (quoted) {
      if (letter == '\\') ++at_;
      quoted = letter != '"';
      continue;
    }
    if (letter == '"') quoted = true;
    if (letter == '{' || letter == '[') ++depth;
    const bool closes = letter == '}' || letter == ']';
    if (depth == 0 && (closes || letter == ',')) break;
    if (closes) --depth;
  }
  if (depth > 0 || quoted || at_ > text_.size() || at_ == start) broken("ends inside of a value");
  return text_.substr(start, at_ - start);
}

void JsonReader::end() {
  skip_space();
  if (at_ < text_.size()) broken("goes on behind its end");
}

}  // namespace profl
