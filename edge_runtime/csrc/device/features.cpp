#include "device/features.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace profl {
namespace {

constexpr float kLargestStep = 255.0f;

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Round to nearest, ties to even; what is too large becomes infinite.
uint16_t to_half(float value) {
  const uint32_t bits = bits_of(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return sign | 0x7E00;
  if (magnitude >= 0x47800000) return sign | 0x7C00;
  if (magnitude < 0x38800000) {
    // Below 2^-14 halves are evenly spaced: adding 0.5 lets the float's own rounding do it.
    return sign | static_cast<uint16_t>(bits_of(from_bits(magnitude) + 0.5f) - bits_of(0.5f));
  }
  const uint32_t rounded = magnitude + 0xFFF + (magnitude >> 13 & 1);
  return sign | static_cast<uint16_t>((rounded >> 13) - (112 << 10));
}

float from_half(uint16_t half) {
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7FFF) << 13;
  float value = from_bits(magnitude) * from_bits(0x77800000);  // 2^112 moves the exponent's bias, subnormals included
  if (value >= 65536.0f) value = from_bits(bits_of(value) | 0x7F800000);
  return from_bits(bits_of(value) | static_cast<uint32_t>(half & 0x8000) << 16);
}

void encode_channel(const float* from, size_t count, float* low_and_step, uint8_t* to) {
  float low = count ? from[0] : 0.0f, high = low;
  for (size_t i = 1; i < count; ++i) {
    low = std::min(low, from[i]);
    high = std::max(high, from[i]);
  }
  const float step = (high - low) / kLargestStep;
  low_and_step[0] = low;
  low_and_step[1] = step;
  for (size_t i = 0; i < count; ++i) {
    const float steps = step > 0.0f ? std::nearbyint((from[i] - low) / step) : 0.0f;
    to[i] = static_cast<uint8_t>(std::min(std::max(steps, 0.0f), kLargestStep));
  }
}

bool read_whole(int file, uint8_t* to, size_t bytes, int64_t offset) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t count = pread(file, to + done, bytes - done, offset + static_cast<int64_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    done += count;
  }
  return true;
}

}  // namespace

FeatureType feature_type(const std::string& name) {
  if (name == "float32") return FeatureType::float32;
  if (name == "float16") return FeatureType::float16;
  if (name == "int8") return FeatureType::int8;
  throw std::invalid_argument("no such type of features: " + name);
}

size_t FeatureRows::row_bytes() const {
  const size_t count = channels * values;
  if (type == FeatureType::float32) return count * sizeof(float);
  if (type == FeatureType::float16) return count * sizeof(uint16_t);
  return channels * 2 * sizeof(float) + count;
}

void FeatureRows::encode(const float* features, uint8_t* row) const {
  const size_t count = channels * values;
  if (type == FeatureType::float32) {
    std::memcpy(row, features, count * sizeof(float));
  } else if (type == FeatureType::float16) {
    auto* halves = reinterpret_cast<uint16_t*>(row);
    for (size_t i = 0; i < count; ++i) halves[i] = to_half(features[i]);
  } else {
    auto* scales = reinterpret_cast<float*>(row);
    uint8_t* steps = row + channels * 2 * sizeof(float);
    for (size_t c = 0; c < channels; ++c) {
      encode_channel(features + c * values, values, scales + 2 * c, steps + c * values);
    }
  }
}

void FeatureRows::decode(const uint8_t* row, float* features) const {
  const size_t count = channels * values;
  if (type == FeatureType::float32) {
    std::memcpy(features, row, count * sizeof(float));
  } else if (type == FeatureType::float16) {
    const auto* halves = reinterpret_cast<const uint16_t*>(row);
    for (size_t i = 0; i < count; ++i) features[i] = from_half(halves[i]);
  } else {
    const auto* scales = reinterpret_cast<const float*>(row);
    const uint8_t* steps = row + channels * 2 * sizeof(float);
    for (size_t c = 0; c < channels; ++c) {
      const float low = scales[2 * c], step = scales[2 * c + 1];
      for (size_t i = 0; i < values; ++i) {
        features[c * values + i] = low + step * static_cast<float>(steps[c * values + i]);
      }
    }
  }
}

int FeatureRows::write(int file, int64_t offset, const float* features, size_t count) const {
  const size_t bytes = row_bytes();
  std::vector<uint8_t> row(bytes);
  for (size_t example = 0; example < count; ++example, offset += static_cast<int64_t>(bytes)) {
    encode(features + example * channels * values, row.data());
    for (size_t done = 0; done < bytes;) {
      const ssize_t written = pwrite(file, row.data() + done, bytes - done, offset + static_cast<int64_t>(done));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return written < 0 ? errno : EIO;
      done += written;
    }
  }
  return 0;
}

int64_t FeatureRows::read(int file, int64_t offset, const std::vector<int64_t>& indices, float* out) const {
  const size_t bytes = row_bytes();
  std::vector<uint8_t> row(type == FeatureType::float32 ? 0 : bytes);
  for (const int64_t index : indices) {
    uint8_t* target = row.empty() ? reinterpret_cast<uint8_t*>(out) : row.data();
    if (!read_whole(file, target, bytes, offset + index * static_cast<int64_t>(bytes))) return index;
    if (!row.empty()) decode(row.data(), out);
    out += channels * values;
  }
  return -1;
}

}  // namespace profl
