// The examples of a training or an evaluation: labels in memory, inputs on disk.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runner/files/open_file.h"
#include "runner/files/tensor_file.h"

namespace profl {

constexpr int64_t kIgnoredLabel = -100;  // of a token or pixel that does not count

// What a model takes as an example. Its output is compared with `targets` numbers, with a label for each of `positions`
// tokens or pixels, or, where both are 0, with one label.
struct Example {
  Shape shape;
  std::string dtype;
  int64_t classes = 0, targets = 0, positions = 0, vocabulary = 0;
};

// Records of one size, one behind the other in one file: pixels of `image_shape` (channels, height, width), or, where
// that is empty, inputs as the model takes them.
struct DataSet {
  std::string origin, labels_origin;
  std::shared_ptr<const OpenFile> file;
  uint64_t first = 0, record_bytes = 0;
  int64_t examples = 0;
  Shape image_shape;
  std::vector<int32_t> labels;
  std::vector<float> targets;
  uint32_t labels_crc32 = 0;  // of the labels as Python keeps them

  // Throws Failure unless the labels, and the tokens of a model of tokens, are those of the model.
  void check(const Example& wanted) const;
};

// `idx:DIR`, `fashion-mnist`, `fashion-mnist:DIR` or `npz:FILE`, the part for training (`train`) or testing (`test`);
// throws Failure.
DataSet open_data(const std::string& spec, const Example& wanted, const std::string& split);

DataSet open_idx(const std::string& folder, const std::string& spec, const Example& wanted, const std::string& split);
DataSet open_npz(const std::string& path, const std::string& spec, const Example& wanted, const std::string& split);

// Throws Failure, with both shapes, unless images of this shape can be fitted to the model's input.
void check_fits(const Shape& image, const Example& wanted, const std::string& spec);
// Keeps labels, int64 one behind the other, with their checksum; `several` of an example (0 for one) may be ignored.
void keep_labels(DataSet& data, const std::vector<int64_t>& labels, int64_t several = 0);
uint32_t crc32_of(const void* data, size_t bytes);

}  // namespace profl
