// Features of the frozen prefix as rows of a file: one row an example.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace profl {

enum class FeatureType { float32, float16, int8 };

// Throws std::invalid_argument for another name.
FeatureType feature_type(const std::string& name);

// How an example's features, [channels, values], lie in a row. float16 is IEEE 754's; int8 stores the smallest value
// and the step of every channel as float32, then each value as a number of steps.
struct FeatureRows {
  FeatureType type;
  size_t channels, values;

  size_t row_bytes() const;
  void encode(const float* features, uint8_t* row) const;
  void decode(const uint8_t* row, float* features) const;

  // Writes `count` examples as rows from `offset` on. Returns 0, or errno.
  int write(int file, int64_t offset, const float* features, size_t count) const;
  // Fills `out` with the rows of `indices` of a file whose first row lies at `offset`. Returns the first row that the
  // file does not hold whole, -1 when all were read.
  int64_t read(int file, int64_t offset, const std::vector<int64_t>& indices, float* out) const;
};

}  // namespace profl
