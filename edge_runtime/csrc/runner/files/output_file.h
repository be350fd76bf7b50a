// Files that are there whole or not at all, and who may write them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace profl {

// What `path` leads to where it is a link. Throws Failure for a place that no file can be written to.
std::string checked_output(const std::string& path);

// Removes temporary files that a killed run left; the caller holds the lock, so that nobody writes them now.
void remove_leftovers(const std::string& path);

// Written beside its place and renamed in the end; removed where it is not finished.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(const void* data, size_t bytes);
  void finish();

 private:
  [[noreturn]] void failed() const;

  std::string path_, temporary_;
  int file_;
};

// One process for each output: `<output>.lock`, which the kernel gives back with the process.
class OutputLock {
 public:
  explicit OutputLock(const std::string& output);
  ~OutputLock();
  OutputLock(const OutputLock&) = delete;
  OutputLock& operator=(const OutputLock&) = delete;

 private:
  std::string path_;
  int file_ = -1;
};

// Throws Failure where the folder of `output` has no room for so many bytes.
void check_disk(const std::string& output, uint64_t bytes);

}  // namespace profl
