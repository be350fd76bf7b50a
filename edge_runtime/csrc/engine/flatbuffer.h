// Reading a flatbuffer that may be damaged or hostile: every place is checked against the bytes before it is read.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace profl {

// Thrown where the bytes are no flatbuffer of the schema; the message has no name of a file.
class BrokenFile {
 public:
  explicit BrokenFile(std::string what) : what_(std::move(what)) {}
  const std::string& what() const { return what_; }

 private:
  std::string what_;
};

// The lists and texts that are read may have so many times the bytes of the file: tables can be named again and again.
constexpr uint64_t kMostRepetition = 4;

class Bytes {
 public:
  // `left` counts what may still be read of lists and texts, in bytes.
  Bytes(const uint8_t* data, size_t size, uint64_t* left) : data_(data), size_(size), left_(left) {}
  size_t size() const { return size_; }

  template <typename Number>
  Number at(uint64_t place) const {
    check(place, sizeof(Number));
    // As ExecuTorch's own check of a file asks for.
    if (place % sizeof(Number) != 0) throw BrokenFile("a number is not aligned");
    Number value;
    std::memcpy(&value, data_ + place, sizeof(Number));
    return value;
  }
  void check(uint64_t place, uint64_t bytes) const {
    if (bytes > size_ || place > size_ - bytes) throw BrokenFile("an offset leaves the file");
  }
  // The same for a whole list.
  void take(uint64_t place, uint64_t bytes) const {
    check(place, bytes);
    if (bytes > *left_) throw BrokenFile("it names the same bytes again and again");
    *left_ -= bytes;
  }
  std::string_view text(uint64_t place, uint64_t length) const {
    take(place, length);
    return {reinterpret_cast<const char*>(data_) + place, static_cast<size_t>(length)};
  }

 private:
  const uint8_t* data_;
  size_t size_;
  uint64_t* left_;
};

// A table: a signed offset back to its vtable, which lists where each field lies. Fields are numbered as in the schema;
// a union takes two, its type and its value.
class Table {
 public:
  Table(Bytes bytes, uint64_t place) : bytes_(bytes), place_(place) {
    const int64_t vtable = static_cast<int64_t>(place) - bytes.at<int32_t>(place);
    if (vtable < 0) throw BrokenFile("an offset leaves the file");
    vtable_ = static_cast<uint64_t>(vtable);
    length_ = bytes.at<uint16_t>(vtable_);
  }

  bool has(int field) const { return offset(field) != 0; }

  template <typename Number>
  Number number(int field, Number missing = 0) const {
    const uint64_t at = offset(field);
    return at == 0 ? missing : bytes_.at<Number>(place_ + at);
  }
  // Where a number, or the first element of a list, lies in the file; 0 where it is missing.
  uint64_t place_of(int field) const { return has(field) ? place_ + offset(field) : 0; }
  uint64_t place_of_list(int field) const { return has(field) ? target(field) + sizeof(uint32_t) : 0; }
  Table table(int field) const { return Table(bytes_, target(field)); }
  std::string_view text(int field) const {
    if (!has(field)) return {};
    const uint64_t at = target(field), length = bytes_.at<uint32_t>(at);
    if (bytes_.at<uint8_t>(at + sizeof(uint32_t) + length) != 0) throw BrokenFile("a text has no end");
    return bytes_.text(at + sizeof(uint32_t), length);
  }
  // Elements of a list, none where it is missing.
  size_t count(int field) const { return has(field) ? bytes_.at<uint32_t>(target(field)) : 0; }
  template <typename Number>
  std::vector<Number> numbers(int field) const {
    std::vector<Number> values(checked_count(field, sizeof(Number)));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = bytes_.at<Number>(target(field) + sizeof(uint32_t) + i * sizeof(Number));
    }
    return values;
  }
  std::vector<Table> tables(int field) const {
    std::vector<Table> values;
    const size_t count = checked_count(field, sizeof(uint32_t));
    values.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      const uint64_t at = target(field) + sizeof(uint32_t) + i * sizeof(uint32_t);
      values.emplace_back(bytes_, at + bytes_.at<uint32_t>(at));
    }
    return values;
  }

 private:
  uint64_t offset(int field) const {
    const uint64_t entry = 4 + 2 * static_cast<uint64_t>(field);
    return entry + 2 > length_ ? 0 : bytes_.at<uint16_t>(vtable_ + entry);
  }
  uint64_t target(int field) const {
    if (!has(field)) throw BrokenFile("a field is missing");
    const uint64_t at = place_ + offset(field);
    return at + bytes_.at<uint32_t>(at);
  }
  size_t checked_count(int field, size_t item_bytes) const {
    const size_t items = count(field);
    if (items > 0) bytes_.take(target(field) + sizeof(uint32_t), static_cast<uint64_t>(items) * item_bytes);
    return items;
  }

  Bytes bytes_;
  uint64_t place_, vtable_;
  uint16_t length_;
};

}  // namespace profl
