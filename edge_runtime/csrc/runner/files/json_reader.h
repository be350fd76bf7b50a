// JSON read from front to back, without a tree: a manifest of a large model would take megabytes as one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace profl {

// Every failure is a Failure that names `where`, the file and the place in it.
class JsonReader {
 public:
  JsonReader(std::string_view text, std::string where) : text_(text), where_(std::move(where)) {}

  // Calls member(key) for every member; it has to read the value.
  template <typename Member>
  void object(const Member& member) {
    expect('{');
    if (take('}')) return;
    do {
      const std::string key = text();
      expect(':');
      member(key);
    } while (take(','));
    expect('}');
  }
  // Calls item() for every item; it has to read it.
  template <typename Item>
  void array(const Item& item) {
    expect('[');
    if (take(']')) return;
    do {
      item();
    } while (take(','));
    expect(']');
  }
  std::string text();
  int64_t integer();
  double number();
  bool flag();
  // Whether the next value is null, which is read then.
  bool null();
  std::vector<int64_t> integers();
  // The next value as it is written.
  std::string_view raw();
  // Throws unless only white space is left.
  void end();
  // For a member that a reader does not know.
  [[noreturn]] void unknown(const std::string& key) const;
  [[noreturn]] void broken(const std::string& what) const;
  const std::string& where() const { return where_; }

 private:
  void skip_space();
  bool take(char wanted);
  void expect(char wanted);
  bool take_word(std::string_view word);
  std::string_view number_text();
  void escape(std::string& to);
  unsigned four_digits();

  std::string_view text_;
  size_t at_ = 0;
  std::string where_;
};

}  // namespace profl
