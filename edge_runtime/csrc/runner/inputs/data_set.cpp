#include "runner/inputs/data_set.h"

#include <algorithm>

#include "runner/files/failure.h"

namespace profl {
namespace {

constexpr char kFashionMnist[] = "/usr/share/datasets/fashion-mnist";
constexpr size_t kTokensAtOnce = 8192;
constexpr uint32_t kPolynomial = 0xEDB88320;

std::string times(const Shape& shape) {
  std::string text;
  for (const int64_t extent : shape) text += (text.empty() ? "" : "x") + std::to_string(extent);
  return text;
}

}  // namespace

uint32_t crc32_of(const void* data, size_t bytes) {
  uint32_t remainder = 0xFFFFFFFF;
  for (const uint8_t* at = static_cast<const uint8_t*>(data); bytes > 0; ++at, --bytes) {
    remainder ^= *at;
    for (int bit = 0; bit < 8; ++bit) remainder = remainder >> 1 ^ (remainder & 1 ? kPolynomial : 0);
  }
  return ~remainder;
}

void keep_labels(DataSet& data, const std::vector<int64_t>& labels, int64_t several) {
  data.labels_crc32 = crc32_of(labels.data(), labels.size() * sizeof(int64_t));
  data.labels.reserve(labels.size());
  for (size_t i = 0; i < labels.size(); ++i) {
    const bool ignored = several > 0 && labels[i] == kIgnoredLabel;
    if (!ignored && (labels[i] < 0 || labels[i] > INT32_MAX)) {
      const size_t example = i / static_cast<size_t>(std::max<int64_t>(several, 1));
      refuse(data.labels_origin + ": label " + std::to_string(labels[i]) + " (example " + std::to_string(example) +
             ") is not a class; correct the labels, which count from 0");
    }
    data.labels.push_back(static_cast<int32_t>(labels[i]));
  }
}

void check_fits(const Shape& image, const Example& wanted, const std::string& spec) {
  const std::string found =
      "--data " + spec + ": images are " + times(image) + ", the model takes " + times(wanted.shape) + "; ";
  if (wanted.positions != 0) {
    refuse("--data " + spec + ": gives one label for an example; this model needs npz:FILE with labels [n, " +
           std::to_string(wanted.positions) + "]");
  }
  if (wanted.dtype != "float32" || wanted.targets != 0) {
    refuse("--data " + spec + ": gives images and labels; this model needs npz:FILE with `inputs` of its own");
  }
  if (wanted.shape.size() != 3) refuse(found + "inputs that are no images need npz:FILE with float32 `inputs`");
  if (image[0] != 1 && image[0] != wanted.shape[0]) refuse(found + "export the bundle with --input " + times(image));
  if (image[1] > wanted.shape[1] || image[2] > wanted.shape[2]) {
    refuse(found + "images larger than the input are not shrunk here");
  }
}

void DataSet::check(const Example& wanted) const {
  if (examples == 0) refuse(origin + ": holds no example");
  if (examples > INT32_MAX) refuse(origin + ": holds too many examples; give at most 2147483647");
  if (wanted.targets == 0) {
    const auto largest = std::max_element(labels.begin(), labels.end());
    if (*largest == kIgnoredLabel) refuse(labels_origin + ": every label is -100, which none counts of");
    if (*largest >= wanted.classes) {
      const auto example = (largest - labels.begin()) / std::max<int64_t>(wanted.positions, 1);
      refuse(labels_origin + ": label " + std::to_string(*largest) + " (example " + std::to_string(example) +
             ") is outside 0.." + std::to_string(wanted.classes - 1) + "; correct the labels, which count from 0");
    }
  }
  if (wanted.vocabulary == 0) return;
  const uint64_t bytes = record_bytes * static_cast<uint64_t>(examples);
  std::vector<int64_t> tokens(kTokensAtOnce);
  for (uint64_t at = 0; at < bytes;) {
    const size_t part = static_cast<size_t>(std::min<uint64_t>(bytes - at, kTokensAtOnce * sizeof(int64_t)));
    if (!file->fill(tokens.data(), part, first + at)) refuse(origin + ": ends early");
    for (size_t i = 0; i < part / sizeof(int64_t); ++i) {
      if (tokens[i] >= 0 && tokens[i] < wanted.vocabulary) continue;
      refuse(origin + ": token " + std::to_string(tokens[i]) + " (example " +
             std::to_string((at + i * sizeof(int64_t)) / record_bytes) + ") is outside 0.." +
             std::to_string(wanted.vocabulary - 1) + "; correct the tokens or the model's embedding");
    }
    at += part;
  }
}

DataSet open_data(const std::string& spec, const Example& wanted, const std::string& split) {
  const size_t colon = spec.find(':');
  const std::string kind = spec.substr(0, colon), place = colon == std::string::npos ? "" : spec.substr(colon + 1);
  if (kind == "fashion-mnist") return open_idx(place.empty() ? kFashionMnist : place, spec, wanted, split);
  if (kind == "idx" && !place.empty()) return open_idx(place, spec, wanted, split);
  if (kind == "npz" && !place.empty()) return open_npz(place, spec, wanted, split);
  refuse(
      "--data " + spec +
      ": is none that profl-train reads; give idx:DIR, fashion-mnist:DIR or npz:FILE (profl-edge train reads others)");
}

}  // namespace profl
