// Examples on disk: their order in an epoch, and their way into a batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace profl {

// A permutation of 0..count-1: the examples sorted by SplitMix64's finaliser (Steele, Lea, Flood, 2014) of
// `start` + (example + 1) * golden ratio. Nothing is held beside the result.
std::vector<uint32_t> hashed_order(uint64_t start, uint32_t count);

// Fills `out` with even values in [-1, 1): the fractions of multiples of the golden ratio.
void fill_evenly(float* out, size_t count);

// Whether no value is infinite or no number.
bool is_finite(const float* values, size_t count);

// Images of one size, [channels, height, width] of bytes, that lie at known places of open files.
class ImageRecords {
 public:
  struct Shape {
    int channels, height, width;
  };

  // Images are enlarged by the largest whole factor that fits `input`, centred on black and repeated to its channels.
  ImageRecords(Shape raw, Shape input);

  // Appends `count` images, `stride` bytes apart from `first` on.
  void add(int file, int64_t first, int64_t stride, int64_t count);
  // Appends images at `offsets`.
  void add(int file, std::vector<int64_t> offsets);
  int64_t count() const;

  // Fills `out` ([indices, input]) with pixel * 2 / 255 - 1. Returns the first image that its file does not hold whole,
  // -1 when all were read.
  int64_t fetch(const std::vector<int64_t>& indices, float* out);
  // The same, every image cut at a random place out of itself with kPadding black pixels around it, then half of them
  // turned over from left to right: what torchvision's RandomCrop (with padding) and RandomHorizontalFlip do to bytes.
  // Both follow from `start` and the image's number alone.
  int64_t fetch_augmented(const std::vector<int64_t>& indices, uint64_t start, float* out);

  static constexpr int kPadding = 4;

 private:
  struct Part {
    int file;
    int64_t first, stride, count;
    std::vector<int64_t> offsets;
  };
  bool read(int64_t index);
  void place(float* out) const;
  void cut_and_turn(uint64_t key, float* image);

  Shape raw_, input_;
  int factor_, top_, left_;
  std::vector<Part> parts_;
  std::vector<uint8_t> pixels_;
  std::vector<float> row_;
  float values_[256];
};

}  // namespace profl
