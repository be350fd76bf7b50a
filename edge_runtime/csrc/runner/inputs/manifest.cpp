#include "runner/inputs/manifest.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "engine/mapped_file.h"
#include "runner/files/failure.h"
#include "runner/inputs/manifest_checks.h"

namespace profl {
namespace {

constexpr int64_t kFormatVersion = 2;

ProgramValue read_value(JsonReader& json) {
  ProgramValue value;
  json.object([&](const std::string& key) {
    if (key == "name") {
      value.name = json.text();
    } else if (key == "role") {
      value.role = json.text();
    } else if (key == "dtype") {
      value.dtype = json.text();
    } else if (key == "shape") {
      value.shape = json.integers();
    } else if (key == "read_before") {
      value.read_before = json.integers();
    } else if (key == "arena_offset") {
      value.arena_offset = json.null() ? 0 : json.integer();
    } else {
      json.unknown(key);
    }
  });
  return value;
}

std::vector<ProgramValue> read_values(JsonReader& json) {
  std::vector<ProgramValue> values;
  json.array([&] { values.push_back(read_value(json)); });
  return values;
}

OptimizerSettings read_optimizer(JsonReader& json) {
  OptimizerSettings optimizer;
  json.object([&](const std::string& key) {
    if (key == "name") {
      optimizer.name = json.text();
    } else if (key == "momentum") {
      optimizer.momentum = json.number();
    } else if (key == "weight_decay") {
      optimizer.weight_decay = json.number();
    } else if (key == "beta1") {
      optimizer.beta1 = json.number();
    } else if (key == "beta2") {
      optimizer.beta2 = json.number();
    } else if (key == "clip_norm") {
      optimizer.clip_norm = json.number();
    } else if (key == "nesterov") {
      optimizer.nesterov = json.flag();
    } else if (key == "proximal") {
      optimizer.proximal = json.flag();
    } else if (key == "momentum_dtype" || key == "eps") {
      json.raw();  // compiled into the program
    } else {
      json.unknown(key);
    }
  });
  return optimizer;
}

MemoryBytes read_memory(JsonReader& json) {
  MemoryBytes memory;
  json.object([&](const std::string& key) {
    uint64_t* const to = key == "arena_bytes"                  ? &memory.arena
                         : key == "frozen_bytes"               ? &memory.frozen
                         : key == "workspace_bytes_per_thread" ? &memory.workspace_per_thread
                         : key == "staging_bytes"              ? &memory.staging
                                                               : nullptr;
    if (to == nullptr) {
      json.raw();  // what the arena consists of
      return;
    }
    const int64_t value = json.integer();
    if (value < 0 || value > kLargestBytes) json.broken("memory: " + key + " is no size");
    *to = static_cast<uint64_t>(value);
  });
  return memory;
}

void read_work(JsonReader& json, ProgramManifest& program) {
  json.object([&](const std::string& key) {
    if (key == "kind") {
      program.kind = json.text();
    } else if (key == "first_unit") {
      program.first_unit = json.integer();
    } else if (key == "last_unit") {
      program.last_unit = json.integer();
    } else {
      json.unknown(key);
    }
  });
}

ProgramManifest read_program(JsonReader& json) {
  ProgramManifest program;
  json.object([&](const std::string& key) {
    int64_t* const count = key == "block"                 ? &program.block
                           : key == "batch"               ? &program.batch
                           : key == "micro_batch"         ? &program.micro_batch
                           : key == "prefix_instructions" ? &program.prefix_instructions
                           : key == "instructions"        ? &program.instructions
                                                          : nullptr;
    if (count != nullptr) {
      *count = json.integer();
    } else if (key == "name") {
      program.name = json.text();
    } else if (key == "work") {
      read_work(json, program);
    } else if (key == "variant") {
      program.variant = json.text();
    } else if (key == "optimizer") {
      if (!json.null()) program.optimizer = read_optimizer(json);
    } else if (key == "loss") {
      json.object([&](const std::string& part) {
        if (part == "name") {
          program.loss = json.text();
        } else {
          json.raw();  // compiled into the program
        }
      });
    } else if (key == "inputs") {
      program.inputs = read_values(json);
    } else if (key == "tensors") {
      program.tensors = read_values(json);
    } else if (key == "memory") {
      program.memory = read_memory(json);
    } else if (key == "loads") {
      json.raw();  // of planners
    } else {
      json.unknown(key);
    }
  });
  return program;
}

void read_model(JsonReader& json, Manifest& manifest) {
  json.object([&](const std::string& key) {
    if (key == "input_shape") {
      manifest.input_shape = json.integers();
    } else if (key == "input_dtype") {
      manifest.input_dtype = json.text();
    } else if (key == "classes") {
      manifest.classes = json.integer();
    } else if (key == "positions") {
      if (!json.null()) manifest.positions = json.integer();
    } else if (key == "vocabulary") {
      if (!json.null()) manifest.vocabulary = json.integer();
    } else if (key == "units") {
      json.array([&] {
        Manifest::Unit unit;
        json.object([&](const std::string& part) {
          if (part == "name") {
            unit.name = json.text();
          } else if (part == "tensors") {
            json.array([&] { unit.tensors.push_back(json.text()); });
          } else {
            json.raw();
          }
        });
        manifest.units.push_back(std::move(unit));
      });
    } else {
      json.raw();
    }
  });
}

void read_partition(JsonReader& json, Manifest& manifest) {
  json.object([&](const std::string& key) {
    if (key != "blocks") json.unknown(key);
    json.array([&] {
      Manifest::Block block{};
      json.object([&](const std::string& part) {
        if (part == "index") {
          block.index = json.integer();
        } else if (part == "first_unit") {
          block.first_unit = json.integer();
        } else if (part == "last_unit") {
          block.last_unit = json.integer();
        } else {
          json.unknown(part);
        }
      });
      manifest.blocks.push_back(block);
    });
  });
}

void read_files(JsonReader& json, Manifest& manifest) {
  json.array([&] {
    std::string path;
    Manifest::File file{};
    json.object([&](const std::string& key) {
      if (key == "path") {
        path = json.text();
      } else if (key == "size_bytes") {
        file.bytes = static_cast<uint64_t>(json.integer());
      } else if (key == "sha256") {
        file.sha256 = json.text();
      } else {
        json.unknown(key);
      }
    });
    manifest.files[path] = std::move(file);
  });
}

void check_size(const std::string& path, uint64_t stated) {
  struct stat about = {};
  if (stat(path.c_str(), &about) != 0) refuse(path + ": " + std::strerror(errno));
  if (static_cast<uint64_t>(about.st_size) == stated) return;
  refuse(path + ": " + std::to_string(about.st_size) + " bytes, the manifest states " + std::to_string(stated) +
         "; export or copy the bundle again");
}

}  // namespace

std::string ProgramManifest::work_name() const {
  const bool starts = kind == "head" || kind == "eval" || kind == "features";
  return kind + "-units" + std::to_string(starts ? 0 : first_unit) + "-" + std::to_string(last_unit);
}

Manifest Manifest::read(const std::string& folder) {
  const std::string path = folder + "/manifest.json";
  struct stat about = {};
  if (stat(folder.c_str(), &about) != 0 || !S_ISDIR(about.st_mode)) refuse(folder + ": not a bundle folder");
  const MappedFile bytes(path.c_str());
  if (bytes.error() != 0) refuse(path + ": " + std::strerror(bytes.error()));
  JsonReader json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
  Manifest manifest;
  manifest.folder = folder;
  manifest.digest = sha256_of(OpenFile(path));
  int64_t version = kFormatVersion;
  json.object([&](const std::string& key) {
    if (key == "format_version") {
      version = json.integer();
      if (version != kFormatVersion) {
        json.broken("format_version " + std::to_string(version) + " is not known here (this release reads " +
                    std::to_string(kFormatVersion) + ")");
      }
    } else if (key == "created_by") {
      json.raw();
    } else if (key == "model") {
      read_model(json, manifest);
    } else if (key == "partition") {
      read_partition(json, manifest);
    } else if (key == "programs") {
      json.array([&] { manifest.programs.push_back(read_program(json)); });
    } else if (key == "files") {
      read_files(json, manifest);
    } else {
      json.unknown(key);
    }
  });
  json.end();
  check_manifest(manifest, path);
  for (const auto& [relative, file] : manifest.files) check_size(folder + "/" + relative, file.bytes);
  return manifest;
}

std::string Manifest::verified(const std::string& relative) const {
  const auto entry = files.find(relative);
  if (entry == files.end()) refuse(folder + "/manifest.json: files: " + relative + " is missing");
  const std::string path = folder + "/" + relative;
  if (sha256_of(OpenFile(path)) != entry->second.sha256) {
    refuse(path + ": its SHA-256 is not the manifest's; export or copy the bundle again");
  }
  return path;
}

}  // namespace profl
