#include "device/examples.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <numeric>

namespace profl {
namespace {

uint64_t finalised(uint64_t key) {
  key ^= key >> 30;
  key *= 0xBF58476D1CE4E5B9u;
  key ^= key >> 27;
  key *= 0x94D049BB133111EBu;
  return key ^ (key >> 31);
}

uint64_t key_of(uint64_t start, uint64_t example) { return finalised(start + (example + 1) * 0x9E3779B97F4A7C15u); }

// One of 0..count-1, evenly from 31 bits.
int chosen(uint64_t bits, int count) {
  return static_cast<int>((bits & 0x7FFFFFFF) * static_cast<uint64_t>(count) >> 31);
}

}  // namespace

std::vector<uint32_t> hashed_order(uint64_t start, uint32_t count) {
  std::vector<uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0u);
  const auto key = [start](uint32_t example) { return key_of(start, example); };
  // The finaliser is one-to-one, so that no two keys are equal.
  std::sort(order.begin(), order.end(), [&key](uint32_t a, uint32_t b) { return key(a) < key(b); });
  return order;
}

void fill_evenly(float* out, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const double multiple = static_cast<double>(i) * 0.6180339887498949;
    const volatile double fraction = multiple - std::floor(multiple);
    out[i] = static_cast<float>(fraction * 2.0 - 1.0);
  }
}

bool is_finite(const float* values, size_t count) {
  // A value times zero is no number where the value is infinite or none: one sum, which vectorises.
  float sum = 0.0f;
  for (size_t i = 0; i < count; ++i) sum += values[i] * 0.0f;
  return sum == 0.0f;
}

ImageRecords::ImageRecords(Shape raw, Shape input)
    : raw_(raw),
      input_(input),
      factor_(std::min(input.height / raw.height, input.width / raw.width)),
      top_((input.height - factor_ * raw.height) / 2),
      left_((input.width - factor_ * raw.width) / 2),
      pixels_(static_cast<size_t>(raw.channels) * raw.height * raw.width),
      row_(input.width) {
  for (int pixel = 0; pixel < 256; ++pixel) {
    // Two roundings, as numpy's: the product is a value of its own.
    const volatile float product = static_cast<float>(pixel) * static_cast<float>(2.0 / 255.0);
    values_[pixel] = product - 1.0f;
  }
}

void ImageRecords::add(int file, int64_t first, int64_t stride, int64_t count) {
  parts_.push_back({file, first, stride, count, {}});
}

void ImageRecords::add(int file, std::vector<int64_t> offsets) {
  const auto count = static_cast<int64_t>(offsets.size());
  parts_.push_back({file, 0, 0, count, std::move(offsets)});
}

int64_t ImageRecords::count() const {
  int64_t total = 0;
  for (const Part& part : parts_) total += part.count;
  return total;
}

int64_t ImageRecords::fetch(const std::vector<int64_t>& indices, float* out) {
  const size_t example = static_cast<size_t>(input_.channels) * input_.height * input_.width;
  for (size_t position = 0; position < indices.size(); ++position) {
    if (!read(indices[position])) return indices[position];
    place(out + position * example);
  }
  return -1;
}

int64_t ImageRecords::fetch_augmented(const std::vector<int64_t>& indices, uint64_t start, float* out) {
  const size_t example = static_cast<size_t>(input_.channels) * input_.height * input_.width;
  for (size_t position = 0; position < indices.size(); ++position) {
    if (!read(indices[position])) return indices[position];
    place(out + position * example);
    cut_and_turn(key_of(start, static_cast<uint64_t>(indices[position])), out + position * example);
  }
  return -1;
}

// In place: rows are taken in the order in which none is overwritten before it is read.
void ImageRecords::cut_and_turn(uint64_t key, float* image) {
  const int down = chosen(key, 2 * kPadding + 1) - kPadding, right = chosen(key >> 31, 2 * kPadding + 1) - kPadding;
  const bool turned = key >> 63 != 0;
  const int height = input_.height, width = input_.width;
  for (int channel = 0; channel < input_.channels; ++channel, image += static_cast<size_t>(height) * width) {
    for (int step = 0; step < height; ++step) {
      const int y = down >= 0 ? step : height - 1 - step, from = y + down;
      float* row = image + static_cast<size_t>(y) * width;
      if (from < 0 || from >= height) {
        std::fill_n(row, width, values_[0]);
        continue;
      }
      const float* source = image + static_cast<size_t>(from) * width;
      for (int x = 0; x < width; ++x) {
        const int at = (turned ? width - 1 - x : x) + right;
        row_[x] = at < 0 || at >= width ? values_[0] : source[at];
      }
      std::copy_n(row_.data(), width, row);
    }
  }
}

bool ImageRecords::read(int64_t index) {
  for (const Part& part : parts_) {
    if (index >= part.count) {
      index -= part.count;
      continue;
    }
    const int64_t offset = part.offsets.empty() ? part.first + index * part.stride : part.offsets[index];
    for (size_t done = 0; done < pixels_.size();) {
      const ssize_t count = pread(part.file, pixels_.data() + done, pixels_.size() - done, offset + done);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return false;
      done += count;
    }
    return true;
  }
  return false;
}

void ImageRecords::place(float* out) const {
  const size_t plane = static_cast<size_t>(input_.height) * input_.width;
  std::fill(out, out + plane * input_.channels, -1.0f);
  for (int channel = 0; channel < input_.channels; ++channel) {
    const uint8_t* pixels =
        pixels_.data() + (raw_.channels == 1 ? 0 : static_cast<size_t>(channel) * raw_.height * raw_.width);
    for (int y = 0; y < raw_.height * factor_; ++y) {
      const uint8_t* row = pixels + static_cast<size_t>(y / factor_) * raw_.width;
      float* target = out + channel * plane + static_cast<size_t>(top_ + y) * input_.width + left_;
      for (int x = 0; x < raw_.width; ++x) {
        for (int copy = 0; copy < factor_; ++copy) *target++ = values_[row[x]];
      }
    }
  }
}

}  // namespace profl
