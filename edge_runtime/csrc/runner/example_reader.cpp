#include "runner/example_reader.h"

#include <algorithm>
#include <cstring>

#include "runner/files/failure.h"

namespace profl {
namespace {

ImageRecords::Shape extents(const Shape& shape) {
  return {static_cast<int>(shape[0]), static_cast<int>(shape[1]), static_cast<int>(shape[2])};
}

}  // namespace

ExampleReader::ExampleReader(DataSet data, const Example& wanted)
    : data_(std::move(data)),
      example_bytes_(static_cast<size_t>(elements_of(wanted.shape)) * item_bytes(wanted.dtype, data_.origin)),
      targets_(static_cast<size_t>(wanted.targets)),
      labels_(static_cast<size_t>(std::max<int64_t>(wanted.positions, 1))) {
  if (data_.image_shape.empty()) return;
  images_.emplace(extents(data_.image_shape), extents(wanted.shape));
  images_->add(data_.file->number(), static_cast<int64_t>(data_.first), static_cast<int64_t>(data_.record_bytes),
               data_.examples);
}

void ExampleReader::fetch(const std::vector<int64_t>& indices, std::optional<uint64_t> start, void* batch,
                          char* labels) {
  int64_t failed = -1;
  if (images_) {
    auto* out = static_cast<float*>(batch);
    failed = start ? images_->fetch_augmented(indices, *start, out) : images_->fetch(indices, out);
  } else {
    char* to = static_cast<char*>(batch);
    for (const int64_t index : indices) {
      const uint64_t offset = data_.first + static_cast<uint64_t>(index) * data_.record_bytes;
      if (failed < 0 && !data_.file->fill(to, example_bytes_, offset)) failed = index;
      to += example_bytes_;
    }
  }
  if (failed >= 0) {
    refuse(data_.origin + ": ends inside " + (images_ ? "image " : "example ") + std::to_string(failed));
  }
  if (labels != nullptr) fetch_labels(indices, labels);
}

void ExampleReader::fetch_labels(const std::vector<int64_t>& indices, char* labels) const {
  for (const int64_t index : indices) {
    if (targets_ > 0) {
      std::memcpy(labels, data_.targets.data() + static_cast<size_t>(index) * targets_, targets_ * sizeof(float));
      labels += targets_ * sizeof(float);
    } else {
      for (size_t i = 0; i < labels_; ++i, labels += sizeof(int64_t)) {
        const int64_t label = data_.labels[static_cast<size_t>(index) * labels_ + i];
        std::memcpy(labels, &label, sizeof(label));
      }
    }
  }
}

int64_t ExampleReader::counted(const std::vector<int64_t>& indices) const {
  int64_t count = 0;
  for (const int64_t index : indices) {
    const auto first = data_.labels.begin() + index * static_cast<int64_t>(labels_);
    const auto last = first + static_cast<int64_t>(labels_);
    count += static_cast<int64_t>(labels_) - std::count(first, last, static_cast<int32_t>(kIgnoredLabel));
  }
  return count;
}

void ExampleReader::rehearse() {
  std::vector<char> example(example_bytes_);
  fetch({0}, std::nullopt, example.data(), nullptr);
}

}  // namespace profl
