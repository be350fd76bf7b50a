#include "runner/inputs/laid_weights.h"

#include <algorithm>
#include <set>

#include "runner/files/failure.h"
#include "runner/files/sha256.h"

namespace profl {
namespace {

constexpr char kStandIn[] = "output_module.block", kConstant[] = "constant.";
constexpr size_t kVersionDigits = 16;

bool starts_with(const std::string& text, const std::string& start) {
  return text.compare(0, start.size(), start) == 0;
}

std::string list_of(const std::vector<std::string>& words) {
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) {
    text += (i == 0 ? "" : i + 1 == words.size() ? " and " : ", ") + words[i];
  }
  return text;
}

}  // namespace

LaidWeights::LaidWeights(const Manifest& manifest, const std::vector<std::string>& files) {
  layers_.emplace_back(manifest.verified("weights/initial.safetensors"));
  for (const std::string& path : files) {
    layers_.emplace_back(path);
    check_layer(layers_.back());
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    for (const auto& entry : layers_[i].tensors()) holders_[entry.first] = i;
  }
  for (const Manifest::Block& block : manifest.blocks) {
    for (int64_t unit = block.first_unit; unit <= block.last_unit; ++unit) {
      for (const std::string& name : manifest.units[static_cast<size_t>(unit)].tensors)
        blocks_.emplace(name, block.index);
    }
  }
  for (const ProgramManifest& program : manifest.programs) {
    for (const ProgramValue& tensor : program.tensors) {
      if (!is_trained(tensor.role)) continue;
      learnt_[tensor.name] = true;
      learnt_parts_[part_of(tensor.name)] = true;
    }
  }
}

void LaidWeights::check_layer(const TensorFile& layer) const {
  const std::string where = "--weights " + layer.path() + ": ";
  if (!layer.metadata("profl_checkpoint").empty()) {
    refuse(where + "is the checkpoint of a training; finish that training with --resume, and use its output");
  }
  if (layer.tensors().empty()) refuse(where + "contains no tensors; give weights of this model");
  for (const auto& [name, tensor] : layer.tensors()) {
    if (layers_.front().tensors().count(name) == 0) {
      refuse(where + "tensor '" + name +
             "' is not a tensor of the model; give weights of this model, or remove it from the file");
    }
    layers_.front().check(name, tensor.dtype, tensor.shape);
  }
}

const TensorFile& LaidWeights::holder(const std::string& name) const {
  const auto found = holders_.find(name);
  if (found == holders_.end()) refuse(layers_.front().path() + ": tensor '" + name + "' is missing");
  return layers_[found->second];
}

Source LaidWeights::source(const ProgramValue& value) const {
  const TensorFile& file = holder(value.name);
  file.check(value.name, value.dtype, value.shape);
  return file.source(value.name);
}

std::string LaidWeights::part_of(const std::string& name) const {
  const auto block = blocks_.find(name);
  if (block != blocks_.end()) return "block " + std::to_string(block->second);
  if (!starts_with(name, kStandIn)) return "the classifier head";
  const std::string behind = name.substr(sizeof(kStandIn) - 1);
  return "the stand-in of block " + behind.substr(0, behind.find('.'));
}

std::vector<std::string> LaidWeights::read_only(const ProgramManifest& program) const {
  std::set<std::string> trained, seen;
  // A proximal term reads what is trained as it was; a distillation's teacher is a part of what it reads.
  if (program.kind != "distill") {
    for (const ProgramValue& tensor : program.tensors) {
      if (is_trained(tensor.role)) trained.insert(tensor.name);
    }
  }
  std::vector<std::string> names;
  for (const ProgramValue& value : program.inputs) {
    if (value.role != "frozen" || trained.count(value.name) > 0 || starts_with(value.name, kConstant)) continue;
    if (learnt_.count(value.name) == 0 && learnt_parts_.count(part_of(value.name)) > 0) continue;
    if (seen.insert(value.name).second) names.push_back(value.name);
  }
  return names;
}

void LaidWeights::check_whole(const ProgramManifest& program, bool initial_allowed) const {
  if (layers_.size() == 1) return;
  const std::vector<std::string> read = read_only(program);
  std::vector<std::string> all = read, missing;
  for (const ProgramValue& tensor : program.tensors) {
    if (is_trained(tensor.role)) all.push_back(tensor.name);
  }
  std::map<std::string, std::string> given;
  for (const std::string& name : all) {
    if (!is_initial(name)) given[part_of(name)] = name;
  }
  for (const std::string& name : all) {
    const auto part = given.find(part_of(name));
    if (part == given.end() || !is_initial(name)) continue;
    refuse("--weights " + layers_.back().path() + ": " + part->first + " is incomplete: '" + part->second +
           "' is in a file, but '" + name + "' is not; give files that contain all of it");
  }
  for (const std::string& name : read) {
    const std::string part = part_of(name);
    if (is_initial(name) && std::find(missing.begin(), missing.end(), part) == missing.end()) missing.push_back(part);
  }
  if (missing.empty() || initial_allowed) return;
  refuse("--weights " + layers_.back().path() + ": " + program.name + " reads " + list_of(missing) +
         ", and no file holds " + (missing.size() == 1 ? "it" : "them") +
         "; give the updates of earlier steps before these, in order (--weights FIRST --weights SECOND), or give "
         "--initial-prefix to keep the bundle's initial values");
}

std::vector<int64_t> LaidWeights::initial_blocks(const ProgramManifest& program) const {
  std::set<int64_t> blocks;
  for (const std::string& name : read_only(program)) {
    const auto block = blocks_.find(name);
    if (block != blocks_.end() && is_initial(name)) blocks.insert(block->second);
  }
  return {blocks.begin(), blocks.end()};
}

std::string LaidWeights::version() const {
  Sha256 digest;
  for (const auto& [name, layer] : holders_) {
    const StoredTensor& tensor = layers_[layer].tensors().at(name);
    std::string shape;
    for (const int64_t extent : tensor.shape) shape += (shape.empty() ? "" : "x") + std::to_string(extent);
    for (const std::string& text : {name, tensor.dtype, shape}) digest.update(text.c_str(), text.size() + 1);
    const Source source = layers_[layer].source(name);
    source.file->pieces(source.offset, source.bytes,
                        [&](const void* data, size_t bytes) { digest.update(data, bytes); });
  }
  return digest.hex().substr(0, kVersionDigits);
}

}  // namespace profl
