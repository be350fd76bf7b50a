// A file as memory that is only read.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace profl {

class MappedFile {
 public:
  explicit MappedFile(const char* path) {
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat about = {};
    if (file < 0 || fstat(file, &about) != 0) {
      error_ = errno;
    } else if (!S_ISREG(about.st_mode)) {
      error_ = S_ISDIR(about.st_mode) ? EISDIR : EINVAL;
    } else if (about.st_size > 0) {
      map(file, static_cast<size_t>(about.st_size));
    }
    if (file >= 0) close(file);
  }
  ~MappedFile() {
    if (data_ != nullptr) munmap(data_, size_);
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // 0, or why the file cannot be read.
  int error() const { return error_; }
  const uint8_t* data() const { return static_cast<const uint8_t*>(data_); }
  size_t size() const { return size_; }

 private:
  void map(int file, size_t size) {
    void* memory = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    if (memory == MAP_FAILED) {
      error_ = errno;
      return;
    }
    data_ = memory;
    size_ = size;
  }

  void* data_ = nullptr;
  size_t size_ = 0;
  int error_ = 0;
};

}  // namespace profl
