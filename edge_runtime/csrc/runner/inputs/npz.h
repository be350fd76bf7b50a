// Arrays of numpy in a zip archive that is not compressed.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "runner/files/open_file.h"
#include "runner/files/tensor_file.h"

namespace profl {

struct NpzArray {
  std::string type;  // as numpy writes it: |u1, <f4
  Shape shape;
  uint64_t offset = 0, bytes = 0;  // of its numbers in the file
};

// The arrays of an archive by their names, without `.npy`; throws Failure.
class NpzFile {
 public:
  explicit NpzFile(const OpenFile& file) : file_(file) { read_directory(); }

  bool has(const std::string& name) const { return members_.count(name) > 0; }
  NpzArray array(const std::string& name) const;

 private:
  struct Member {
    unsigned method;
    uint64_t bytes, header;
  };

  void read_directory();
  void read_entries(const std::string& directory, size_t count);
  [[noreturn]] void broken(const std::string& what) const;

  const OpenFile& file_;
  std::map<std::string, Member> members_;
};

}  // namespace profl
