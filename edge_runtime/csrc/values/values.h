// What kernels and the engine call a tensor, an argument list and an error, whichever engine runs a program: kernels
// are compiled once for both. Nothing is checked here: programs are checked as a whole before they run
// (engine/program_file.h).
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace profl {

// Numbers as in ExecuTorch's schema.
enum class ScalarType : int8_t { Long = 4, Float = 6, Bool = 11, BFloat16 = 15 };

enum class Error { Ok, InvalidArgument, NotSupported, MemoryAllocationFailed };

// A list in somebody else's memory.
template <typename Item>
class List {
 public:
  List() = default;
  List(const Item* items, size_t count) : items_(items), count_(count) {}
  explicit List(const std::vector<Item>& items) : List(items.data(), items.size()) {}

  size_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  const Item* begin() const { return items_; }
  const Item* end() const { return items_ + count_; }
  const Item& operator[](size_t at) const { return items_[at]; }

 private:
  const Item* items_ = nullptr;
  size_t count_ = 0;
};

// A contiguous tensor: its elements and its sizes are in somebody else's memory.
class Tensor {
 public:
  Tensor() = default;
  Tensor(ScalarType type, List<int32_t> sizes, void* data) : sizes_(sizes), data_(data), type_(type) {
    for (const int32_t size : sizes) elements_ *= size;
  }

  ScalarType scalar_type() const { return type_; }
  List<int32_t> sizes() const { return sizes_; }
  ssize_t dim() const { return static_cast<ssize_t>(sizes_.size()); }
  ssize_t size(ssize_t dimension) const { return sizes_[static_cast<size_t>(dimension)]; }
  ssize_t numel() const { return elements_; }
  size_t nbytes() const { return static_cast<size_t>(elements_) * item_bytes(); }
  const void* const_data_ptr() const { return data_; }
  void* mutable_data_ptr() const { return data_; }
  template <typename Number>
  const Number* const_data_ptr() const {
    return static_cast<const Number*>(data_);
  }
  template <typename Number>
  Number* mutable_data_ptr() const {
    return static_cast<Number*>(data_);
  }
  void point_at(void* data) { data_ = data; }

 private:
  size_t item_bytes() const {
    return type_ == ScalarType::Long ? 8 : type_ == ScalarType::Float ? 4 : type_ == ScalarType::BFloat16 ? 2 : 1;
  }

  List<int32_t> sizes_;
  ssize_t elements_ = 1;
  void* data_ = nullptr;
  ScalarType type_ = ScalarType::Float;
};

// One argument of a call.
class Value {
 public:
  Value() = default;
  explicit Value(const Tensor& tensor) : kind_(Kind::tensor), tensor_(tensor) {}
  explicit Value(int64_t integer) : kind_(Kind::other), integer_(integer) {}
  explicit Value(double number) : kind_(Kind::other), number_(number) {}
  explicit Value(List<int64_t> items) : kind_(Kind::other), items_(items) {}

  bool isNone() const { return kind_ == Kind::none; }
  bool isTensor() const { return kind_ == Kind::tensor; }
  const Tensor& toTensor() const { return tensor_; }
  Tensor& toTensor() { return tensor_; }
  double toDouble() const { return number_; }
  int64_t toInt() const { return integer_; }
  bool toBool() const { return integer_ != 0; }
  List<int64_t> toIntList() const { return items_; }

 private:
  enum class Kind : uint8_t { none, tensor, other };

  Kind kind_ = Kind::none;
  Tensor tensor_;
  int64_t integer_ = 0;
  double number_ = 0;
  List<int64_t> items_;
};

// The arguments of one call, outputs last.
class Stack {
 public:
  Stack(const Value* const* values, size_t count) : values_(values), count_(count) {}
  const Value* operator[](size_t at) const { return values_[at]; }
  size_t size() const { return count_; }

 private:
  const Value* const* values_;
  size_t count_;
};

// Where a kernel says that it failed.
class Context {
 public:
  void fail(Error error) { error_ = error; }
  Error failure_state() const { return error_; }

 private:
  Error error_ = Error::Ok;
};

using Kernel = void (*)(Context&, Stack);

// The kernel of an operator, by its name in the table; null where there is none.
Kernel find_kernel(std::string_view name);

}  // namespace profl
