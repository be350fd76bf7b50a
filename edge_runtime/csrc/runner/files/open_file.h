// An open file, read piece by piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace profl {

// Throws Failure that names the path where it cannot be opened or read.
class OpenFile {
 public:
  explicit OpenFile(const std::string& path);
  OpenFile(OpenFile&& other) noexcept : path_(std::move(other.path_)), file_(other.file_), size_(other.size_) {
    other.file_ = -1;
  }
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  const std::string& path() const { return path_; }
  int number() const { return file_; }
  uint64_t size() const { return size_; }
  // At most `bytes` from `offset`; fewer at the end of the file.
  std::string read(uint64_t offset, size_t bytes) const;
  // Fills `to`; false where the file ends early.
  bool fill(void* to, size_t bytes, uint64_t offset) const;
  // Calls take(data, bytes) for pieces of this part of the file.
  void pieces(uint64_t offset, uint64_t bytes, const std::function<void(const void*, size_t)>& take) const;

 private:
  std::string path_;
  int file_;
  uint64_t size_;
};

std::string sha256_of(const OpenFile& file);

}  // namespace profl
