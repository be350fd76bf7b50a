// IDX files, the format of MNIST and Fashion-MNIST: big-endian magic, extents, bytes. Plain ones: nothing is unpacked.
#include <sys/stat.h>

#include "runner/files/failure.h"
#include "runner/inputs/data_set.h"

namespace profl {
namespace {

constexpr int64_t kMostImages = 2147483647;

bool exists(const std::string& path) {
  struct stat about = {};
  return stat(path.c_str(), &about) == 0;
}

std::string found_file(const std::string& folder, const std::string& stem, const std::string& dimensions) {
  for (const char separator : {'-', '.'}) {
    const std::string path = folder + "/" + stem + separator + "idx" + dimensions + "-ubyte";
    if (exists(path)) return path;
    if (exists(path + ".gz"))
      refuse(path + ".gz: is compressed; profl-train reads plain files: gunzip " + path + ".gz");
  }
  refuse(folder + ": " + stem + "-idx" + dimensions + "-ubyte is missing");
}

Shape extents(const OpenFile& file, int dimensions) {
  const size_t bytes = 4 + 4 * static_cast<size_t>(dimensions);
  const std::string header = file.read(0, bytes);
  if (header.size() < bytes || header.compare(0, 4, std::string("\0\0\x08", 3) + static_cast<char>(dimensions)) != 0) {
    refuse(file.path() + ": not an IDX file of bytes with " + std::to_string(dimensions) + " dimensions");
  }
  Shape shape;
  uint64_t expected = 1;
  for (size_t at = 4; at < bytes; at += 4) {
    int64_t extent = 0;
    for (size_t i = 0; i < 4; ++i) extent = extent << 8 | static_cast<uint8_t>(header[at + i]);
    shape.push_back(extent);
    if (__builtin_mul_overflow(expected, static_cast<uint64_t>(extent), &expected)) expected = UINT64_MAX - bytes;
  }
  if (file.size() != bytes + expected) {
    refuse(file.path() + ": " + std::to_string(file.size()) + " bytes, its header describes " +
           std::to_string(bytes + expected));
  }
  for (size_t d = 1; d < shape.size(); ++d) {
    if (shape[d] == 0) refuse(file.path() + ": images without pixels");
  }
  if (shape[0] > kMostImages) refuse(file.path() + ": holds too many images");
  return shape;
}

}  // namespace

DataSet open_idx(const std::string& folder, const std::string& spec, const Example& wanted, const std::string& split) {
  if (!exists(folder)) refuse("--data " + spec + ": " + folder + ": no such folder");
  DataSet data;
  const std::string stem = split == "test" ? "t10k" : "train";
  data.origin = found_file(folder, stem + "-images", "3");
  data.labels_origin = found_file(folder, stem + "-labels", "1");
  data.file = std::make_shared<OpenFile>(data.origin);
  const Shape shape = extents(*data.file, 3);
  data.examples = shape[0];
  data.image_shape = {1, shape[1], shape[2]};
  data.first = 16;
  data.record_bytes = static_cast<uint64_t>(shape[1] * shape[2]);
  check_fits(data.image_shape, wanted, spec);
  const OpenFile labels(data.labels_origin);
  const int64_t count = extents(labels, 1)[0];
  if (count != data.examples) {
    refuse(data.labels_origin + ": " + std::to_string(count) + " labels for " + std::to_string(data.examples) +
           " images in " + data.origin);
  }
  std::vector<int64_t> numbers;
  for (const char label : labels.read(8, static_cast<size_t>(count))) numbers.push_back(static_cast<uint8_t>(label));
  keep_labels(data, numbers);
  return data;
}

}  // namespace profl
