// Safetensors: what is in a file and where, and files written whole or not at all, with a digest of themselves.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runner/files/open_file.h"

namespace profl {

using Shape = std::vector<int64_t>;

// `float32`, `bfloat16` or `int64`; throws Failure for another one, in the name of `where`.
size_t item_bytes(const std::string& dtype, const std::string& where);
int64_t elements_of(const Shape& shape);
std::string text_of(const Shape& shape);  // [3, 4]

// Where the bytes of a tensor lie.
struct Source {
  std::shared_ptr<const OpenFile> file;
  uint64_t offset = 0, bytes = 0;
};

struct StoredTensor {
  std::string dtype;
  Shape shape;
  uint64_t begin, end;
};

// A file that was checked: header, sizes, and its digest where it has one (`sealed`: it must have one).
class TensorFile {
 public:
  explicit TensorFile(const std::string& path, bool sealed = false);

  const std::string& path() const { return file_->path(); }
  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }
  // Of its metadata; empty where it has none.
  std::string metadata(const std::string& key) const;
  // Throws Failure unless the tensor is there with this type and shape.
  void check(const std::string& name, const std::string& dtype, const Shape& shape) const;
  Source source(const std::string& name) const;

 private:
  void read_header(const std::string& header);
  void check_places() const;

  std::shared_ptr<const OpenFile> file_;
  std::map<std::string, StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
  uint64_t data_start_ = 0;
};

struct TensorView {
  std::string name, dtype;
  Shape shape;
  const void* data;
};

// Replaces `path` with a file of these tensors and this one entry of metadata.
void write_tensors(const std::string& path, std::vector<TensorView> tensors, const std::string& key,
                   const std::string& metadata);

}  // namespace profl
