// Examples from their file into a batch, with their labels.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "device/examples.h"
#include "runner/inputs/data_set.h"

namespace profl {

class ExampleReader {
 public:
  ExampleReader(DataSet data, const Example& wanted);

  int64_t size() const { return data_.examples; }
  const DataSet& data() const { return data_; }
  // Fills a batch with the inputs of `indices`, augmented as follows from `start` where one is given, and their labels,
  // where the program takes some. Throws Failure where the file ends early.
  void fetch(const std::vector<int64_t>& indices, std::optional<uint64_t> start, void* batch, char* labels);
  // How many labels of these examples are not ignored.
  int64_t counted(const std::vector<int64_t>& indices) const;
  // Reads one example beside the batch.
  void rehearse();

 private:
  void fetch_labels(const std::vector<int64_t>& indices, char* labels) const;

  DataSet data_;
  std::optional<ImageRecords> images_;
  size_t example_bytes_;
  size_t targets_, labels_;  // of an example
};

}  // namespace profl
