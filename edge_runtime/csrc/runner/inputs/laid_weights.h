// Weights laid over each other: the bundle's initial ones, then the files of --weights, each over those before it. What
// is checked, and why, stands in edge_runtime/device/prepare/laid_weights.py.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "runner/inputs/manifest.h"

namespace profl {

class LaidWeights {
 public:
  LaidWeights(const Manifest& manifest, const std::vector<std::string>& files);

  // Where a tensor's bytes lie; throws Failure unless it has this type and shape.
  Source source(const ProgramValue& value) const;
  // Throws Failure where `program` reads what no file holds, or a block is there in part.
  void check_whole(const ProgramManifest& program, bool initial_allowed) const;
  // Blocks (1-based) that the program reads without training them and that no file holds.
  std::vector<int64_t> initial_blocks(const ProgramManifest& program) const;
  // 16 digits of the SHA-256 of all tensors.
  std::string version() const;

 private:
  const TensorFile& holder(const std::string& name) const;
  bool is_initial(const std::string& name) const { return &holder(name) == &layers_.front(); }
  std::string part_of(const std::string& name) const;
  std::vector<std::string> read_only(const ProgramManifest& program) const;
  void check_layer(const TensorFile& layer) const;

  std::vector<TensorFile> layers_;
  std::map<std::string, size_t> holders_;              // the last layer that holds each tensor
  std::map<std::string, int64_t> blocks_;              // the first block that each tensor belongs to
  std::map<std::string, bool> learnt_, learnt_parts_;  // what some program trains
};

}  // namespace profl
