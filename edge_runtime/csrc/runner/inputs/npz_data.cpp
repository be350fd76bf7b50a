// `npz:FILE`: `images` (uint8, [n, H, W] or [n, C, H, W]) or `inputs` of the model's own, and `labels`; those for
// testing are called `test_images` and so on.
#include <cstring>

#include "runner/files/failure.h"
#include "runner/inputs/data_set.h"
#include "runner/inputs/npz.h"

namespace profl {
namespace {

// A number of `type` (`i8`, `f4`, ...) as Wide.
template <typename Wide>
Wide number(const char* at, const std::string& type) {
  const auto as = [at](auto value) {
    std::memcpy(&value, at, sizeof(value));
    return static_cast<Wide>(value);
  };
  if (type == "u1" || type == "b1") return as(uint8_t{});
  if (type == "i1") return as(int8_t{});
  if (type == "u2") return as(uint16_t{});
  if (type == "i2") return as(int16_t{});
  if (type == "u4") return as(uint32_t{});
  if (type == "i4") return as(int32_t{});
  if (type == "u8") return as(uint64_t{});
  if (type == "i8") return as(int64_t{});
  return type == "f4" ? as(float{}) : as(double{});
}

bool is_integer(const std::string& type) {
  return type.size() == 2 && std::strchr("iub", type[0]) != nullptr && std::strchr("1248", type[1]) != nullptr;
}

template <typename Wide>
std::vector<Wide> numbers(const OpenFile& file, const NpzArray& array, const std::string& name) {
  const std::string type = array.type.substr(1);
  const bool known = is_integer(type) || type == "f4" || type == "f8";
  if (!known || array.type[0] == '>') {
    refuse(file.path() + ": " + name + " is " + array.type + "; expected numbers of this machine's byte order");
  }
  const size_t bytes = static_cast<size_t>(type[1] - '0');
  std::vector<Wide> values;
  values.reserve(static_cast<size_t>(array.bytes / bytes));
  file.pieces(array.offset, array.bytes, [&](const void* data, size_t piece) {
    for (size_t at = 0; at < piece; at += bytes) {
      values.push_back(number<Wide>(static_cast<const char*>(data) + at, type));
    }
  });
  return values;
}

void read_labels(DataSet& data, const NpzFile& archive, const Example& wanted, const std::string& name) {
  const NpzArray labels = archive.array(name);
  const std::string& path = data.file->path();
  if (labels.shape.empty() || labels.shape[0] != data.examples) {
    refuse(path + ": " + std::to_string(labels.shape.empty() ? 1 : labels.shape[0]) + " labels for " +
           std::to_string(data.examples) + " examples");
  }
  if (wanted.targets != 0) {
    if (elements_of(labels.shape) != data.examples * wanted.targets) {
      refuse(path + ": " + name + " are " + text_of(labels.shape) +
             "; the mean squared error of this model needs numbers [n, " + std::to_string(wanted.targets) + "]");
    }
    data.targets = numbers<float>(*data.file, labels, name);
    data.labels_crc32 = crc32_of(data.targets.data(), data.targets.size() * sizeof(float));
    return;
  }
  if (wanted.positions != 0 && elements_of(labels.shape) != data.examples * wanted.positions) {
    refuse(path + ": " + name + " are " + text_of(labels.shape) +
           "; the tokens or pixels of this model need labels [n, " + std::to_string(wanted.positions) + "]");
  }
  if ((wanted.positions == 0 && labels.shape.size() != 1) || !is_integer(labels.type.substr(1))) {
    refuse(path + ": " + name + " is " + labels.type + " " + text_of(labels.shape) + "; expected whole numbers" +
           (wanted.positions == 0 ? " [n]" : ""));
  }
  keep_labels(data, numbers<int64_t>(*data.file, labels, name), wanted.positions);
}

void use_images(DataSet& data, const NpzArray& images, const std::string& spec, const Example& wanted) {
  const Shape& shape = images.shape;
  if (images.type.substr(1) != "u1" || (shape.size() != 3 && shape.size() != 4)) {
    refuse(data.origin + " is " + images.type + " " + text_of(shape) + "; expected uint8 [n, H, W] or [n, C, H, W]");
  }
  data.image_shape = shape.size() == 3 ? Shape{1, shape[1], shape[2]} : Shape{shape[1], shape[2], shape[3]};
  // A single channel is first and last at once.
  if (shape.size() == 4 && shape[3] == 1 && shape[1] != 1) data.image_shape = {1, shape[1], shape[2]};
  if (elements_of(data.image_shape) == 0) refuse(data.origin + ": images without pixels");
  check_fits(data.image_shape, wanted, spec);
}

void use_inputs(const DataSet& data, const NpzArray& inputs, const Example& wanted) {
  const std::string type = wanted.dtype == "int64" ? "<i8" : "<f4";
  const Shape example(inputs.shape.begin() + !inputs.shape.empty(), inputs.shape.end());
  if (inputs.type == type && example == wanted.shape) return;
  refuse(data.origin + " is " + inputs.type + " " + text_of(inputs.shape) + ", the model takes " + wanted.dtype + " " +
         text_of(wanted.shape) + " for an example");
}

}  // namespace

DataSet open_npz(const std::string& path, const std::string& spec, const Example& wanted, const std::string& split) {
  if (path.find("?test=") != std::string::npos) {
    refuse("--data " + spec + ": profl-train holds nothing out; save the examples for training in a file of their own");
  }
  DataSet data;
  data.file = std::make_shared<OpenFile>(path);
  const NpzFile archive(*data.file);
  const std::string prefix = split == "test" ? "test_" : "";
  const std::string name = prefix + (archive.has("inputs") ? "inputs" : "images");
  if (split == "test" && !archive.has(name)) {
    refuse(path + ": has no test split; add the arrays " + name + " and test_labels, or give --split train");
  }
  const NpzArray array = archive.array(name);
  const bool as_they_are = name == prefix + "inputs" || array.type.substr(1, 1) == "f";
  data.examples = array.shape.empty() ? 0 : array.shape[0];
  data.labels_origin = data.origin = path + ": " + name;
  if (!as_they_are) data.labels_origin = path + ": " + prefix + "labels", data.origin = path;
  data.first = array.offset;
  data.record_bytes = data.examples == 0 ? 0 : array.bytes / static_cast<uint64_t>(data.examples);
  if (as_they_are) {
    use_inputs(data, array, wanted);
  } else {
    use_images(data, array, spec, wanted);
  }
  read_labels(data, archive, wanted, prefix + "labels");
  return data;
}

}  // namespace profl
