#include "runner/files/tensor_file.h"

#include <algorithm>

#include "runner/files/failure.h"
#include "runner/files/json_reader.h"
#include "runner/files/json_text.h"
#include "runner/files/output_file.h"
#include "runner/files/sha256.h"

namespace profl {
namespace {

constexpr uint64_t kLengthBytes = 8, kLongestHeader = 100'000'000, kAlignment = 8;
constexpr char kSealKey[] = "profl_sha256";
const std::string kUnsealed(64, '0');

struct Type {
  const char *dtype, *code;
  size_t bytes;
};
constexpr Type kTypes[] = {{"float32", "F32", 4}, {"bfloat16", "BF16", 2}, {"int64", "I64", 8}};

uint64_t little_endian(const std::string& bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

// Where the digest stands in a header; npos where there is none.
size_t seal_place(std::string_view header) {
  const std::string mark = std::string("\"") + kSealKey + "\":\"";
  const size_t found = header.find(mark);
  return found == std::string_view::npos ? found : found + mark.size();
}

void check_seal(const OpenFile& file, const std::string& start, bool required) {
  const size_t place = seal_place(start);
  if (place == std::string::npos) {
    if (required) refuse(file.path() + ": has no digest, or is damaged; omit --resume to start again");
    return;
  }
  Sha256 digest;
  const auto add = [&](const void* data, size_t bytes) { digest.update(data, bytes); };
  file.pieces(0, place, add);
  digest.update(kUnsealed.data(), kUnsealed.size());
  const uint64_t behind = place + kUnsealed.size();
  file.pieces(behind, file.size() - behind, add);
  if (start.compare(place, kUnsealed.size(), digest.hex()) != 0) {
    refuse(file.path() + ": is damaged: its SHA-256 is not the one it was written with; " +
           (required ? "omit --resume to start again" : "copy it again, or have it written again"));
  }
}

}  // namespace

size_t item_bytes(const std::string& dtype, const std::string& where) {
  for (const Type& type : kTypes) {
    if (dtype == type.dtype) return type.bytes;
  }
  refuse(where + ": the type '" + dtype + "' is not known");
}

int64_t elements_of(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

std::string text_of(const Shape& shape) {
  std::string text = "[";
  for (const int64_t extent : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + "]";
}

TensorFile::TensorFile(const std::string& path, bool sealed) : file_(std::make_shared<OpenFile>(path)) {
  const std::string prefix = file_->read(0, kLengthBytes);
  const uint64_t length = little_endian(prefix);
  if (prefix.size() < kLengthBytes || length > std::min(kLongestHeader, file_->size() - kLengthBytes)) {
    refuse(path + ": not a safetensors file: its header does not fit in " + std::to_string(file_->size()) + " bytes");
  }
  const std::string header = file_->read(kLengthBytes, static_cast<size_t>(length));
  data_start_ = kLengthBytes + length;
  read_header(header);
  check_places();
  check_seal(*file_, prefix + header, sealed);
}

void TensorFile::read_header(const std::string& header) {
  JsonReader reader(header, path() + ": not a safetensors file: header");
  reader.object([&](const std::string& name) {
    if (name == "__metadata__") {
      reader.object([&](const std::string& key) { metadata_[key] = reader.text(); });
      return;
    }
    StoredTensor tensor{};
    reader.object([&](const std::string& key) {
      if (key == "dtype") {
        tensor.dtype = reader.text();
      } else if (key == "shape") {
        tensor.shape = reader.integers();
      } else if (key == "data_offsets") {
        const std::vector<int64_t> offsets = reader.integers();
        if (offsets.size() != 2 || offsets[0] < 0) reader.broken("tensor '" + name + "' has damaged data_offsets");
        tensor.begin = static_cast<uint64_t>(offsets[0]);
        tensor.end = static_cast<uint64_t>(offsets[1]);
      } else {
        reader.unknown(key);
      }
    });
    const auto* type =
        std::find_if(std::begin(kTypes), std::end(kTypes), [&](const Type& t) { return t.code == tensor.dtype; });
    if (type == std::end(kTypes)) {
      refuse(path() + ": tensor '" + name + "' has type " + tensor.dtype + "; only F32, BF16 and I64 are known here");
    }
    tensor.dtype = type->dtype;
    if (!tensors_.emplace(name, std::move(tensor)).second) reader.broken("tensor '" + name + "' is there twice");
  });
  reader.end();
}

void TensorFile::check_places() const {
  std::vector<const std::pair<const std::string, StoredTensor>*> ordered;
  for (const auto& entry : tensors_) ordered.push_back(&entry);
  std::sort(ordered.begin(), ordered.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  uint64_t expected = 0;
  for (const auto* entry : ordered) {
    const auto& [name, tensor] = *entry;
    uint64_t bytes = item_bytes(tensor.dtype, path());
    for (const int64_t extent : tensor.shape) {
      if (extent < 0) refuse(path() + ": tensor '" + name + "' has a negative extent");
      if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(extent), &bytes)) bytes = file_->size() + 1;
    }
    if (tensor.begin != expected || tensor.end - tensor.begin != bytes) {
      refuse(path() + ": tensor '" + name + "' has data_offsets [" + std::to_string(tensor.begin) + ", " +
             std::to_string(tensor.end) + "] that do not fit its shape");
    }
    expected = tensor.end;
  }
  const uint64_t held = file_->size() - data_start_;
  if (expected != held) {
    refuse(path() + ": the header describes " + std::to_string(expected) + " bytes of tensors, the file holds " +
           std::to_string(held));
  }
}

std::string TensorFile::metadata(const std::string& key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? std::string() : found->second;
}

void TensorFile::check(const std::string& name, const std::string& dtype, const Shape& shape) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) refuse(path() + ": tensor '" + name + "' is missing");
  const StoredTensor& tensor = found->second;
  if (tensor.dtype == dtype && tensor.shape == shape) return;
  refuse(path() + ": tensor '" + name + "' is " + tensor.dtype + " " + text_of(tensor.shape) + ", expected " + dtype +
         " " + text_of(shape));
}

Source TensorFile::source(const std::string& name) const {
  const StoredTensor& tensor = tensors_.at(name);
  return {file_, data_start_ + tensor.begin, tensor.end - tensor.begin};
}

void write_tensors(const std::string& path, std::vector<TensorView> tensors, const std::string& key,
                   const std::string& metadata) {
  // Wider elements first keeps every tensor aligned to its element, as the safetensors package writes them.
  std::sort(tensors.begin(), tensors.end(), [&path](const TensorView& a, const TensorView& b) {
    const size_t wide_a = item_bytes(a.dtype, path), wide_b = item_bytes(b.dtype, path);
    return wide_a != wide_b ? wide_a > wide_b : a.name < b.name;
  });
  std::string header = std::string("{\"__metadata__\":{\"") + kSealKey + "\":\"" + kUnsealed + "\"," + json_text(key) +
                       ":" + json_text(metadata) + "}";
  uint64_t position = 0;
  std::vector<size_t> sizes;
  for (const TensorView& tensor : tensors) {
    const auto* type =
        std::find_if(std::begin(kTypes), std::end(kTypes), [&](const Type& t) { return t.dtype == tensor.dtype; });
    sizes.push_back(static_cast<size_t>(elements_of(tensor.shape)) * type->bytes);
    header += "," + json_text(tensor.name) + ":{\"dtype\":\"" + type->code + "\",\"shape\":[";
    for (size_t d = 0; d < tensor.shape.size(); ++d) header += (d ? "," : "") + std::to_string(tensor.shape[d]);
    header += "],\"data_offsets\":[" + std::to_string(position) + "," + std::to_string(position + sizes.back()) + "]}";
    position += sizes.back();
  }
  header += "}";
  while (header.size() % kAlignment != 0) header += ' ';
  std::string start;
  for (size_t i = 0; i < kLengthBytes; ++i) start += static_cast<char>(header.size() >> 8 * i & 0xFF);
  start += header;
  Sha256 digest;
  digest.update(start.data(), start.size());
  for (size_t i = 0; i < tensors.size(); ++i) digest.update(tensors[i].data, sizes[i]);
  start.replace(seal_place(start), kUnsealed.size(), digest.hex());
  OutputFile output(path);
  output.write(start.data(), start.size());
  for (size_t i = 0; i < tensors.size(); ++i) output.write(tensors[i].data, sizes[i]);
  output.finish();
}

}  // namespace profl
