// The manifest of a bundle: what a training reads of it. Fields that this release does not know are refused.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runner/files/json_reader.h"
#include "runner/files/tensor_file.h"

namespace profl {

struct ProgramValue {
  std::string name, role, dtype;
  Shape shape;
  std::vector<int64_t> read_before;
  int64_t arena_offset = 0;  // with read_before

  uint64_t bytes() const { return static_cast<uint64_t>(elements_of(shape)) * item_bytes(dtype, name); }
};

struct OptimizerSettings {
  std::string name;
  double momentum = 0, weight_decay = 0, beta1 = 0.9, beta2 = 0.999, clip_norm = 0;
  bool nesterov = false, proximal = false;

  bool sums_in_momentum() const { return name == "sgd" && !nesterov && clip_norm == 0; }
};

struct MemoryBytes {
  uint64_t arena = 0, frozen = 0, workspace_per_thread = 0, staging = 0;

  uint64_t total(int threads) const {
    return arena + frozen + workspace_per_thread * static_cast<uint64_t>(threads) + staging;
  }
};

// One program. `kind` and the units say its work: grow-units0-3 and so on.
struct ProgramManifest {
  std::string name, kind, variant, loss = "cross-entropy";
  int64_t first_unit = 0, last_unit = 0, block = 0, batch = 0, micro_batch = 0;
  int64_t prefix_instructions = 0, instructions = 0;
  std::optional<OptimizerSettings> optimizer;
  std::vector<ProgramValue> inputs, tensors;
  MemoryBytes memory;

  // Whether the last hyperparameter is how many labels of a step's examples count.
  bool counts_labels() const {
    return micro_batch != batch && std::any_of(inputs.begin(), inputs.end(), [](const ProgramValue& value) {
             return value.role == "label" && value.dtype == "int64" && value.shape.size() > 1;
           });
  }
  bool trains() const { return kind != "eval" && kind != "features"; }
  // joint-units3-8, head-units0-8
  std::string work_name() const;
};

struct Manifest {
  struct Unit {
    std::string name;
    std::vector<std::string> tensors;
  };
  struct Block {
    int64_t index, first_unit, last_unit;
  };
  struct File {
    uint64_t bytes;
    std::string sha256;
  };

  std::string folder, digest;
  Shape input_shape;
  std::string input_dtype = "float32";
  int64_t classes = 0, positions = 0;  // of an example, each with a label; 0 for one label
  std::optional<int64_t> vocabulary;
  std::vector<Unit> units;
  std::vector<Block> blocks;
  std::map<std::string, File> files;
  std::vector<ProgramManifest> programs;

  // Reads `folder/manifest.json` and compares the sizes of all files; throws Failure.
  static Manifest read(const std::string& folder);
  // A file of the bundle after its digest was compared.
  std::string verified(const std::string& relative) const;
};

constexpr char kTrainedRoles[2][20] = {"parameter", "running_statistic"};
inline bool is_trained(const std::string& role) { return role == kTrainedRoles[0] || role == kTrainedRoles[1]; }

}  // namespace profl
