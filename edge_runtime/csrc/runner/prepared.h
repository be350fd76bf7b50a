// Everything before the first step: bundle, weights, data, options and checkpoint become one checked training.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runner/checkpoint.h"
#include "runner/example_reader.h"
#include "runner/loaded_program.h"
#include "runner/options.h"

namespace profl {

struct Prepared {
  Options options;
  ProgramManifest program;
  std::unique_ptr<ExampleReader> examples;
  std::unique_ptr<LoadedProgram> loaded;
  std::unique_ptr<TensorFile> checkpoint;  // that the training continues from
  Progress progress;
  Settings settings;
  int64_t steps = 0;
  double learning_rate = 0;
  std::string base_version;
  std::vector<int64_t> initial_blocks;
};

// What the model of a bundle takes as an example, as `program` compares it.
Example example_of(const Manifest& manifest, const ProgramManifest& program);

// Throws Failure with one line for everything that is wrong. The caller holds the lock of the output.
Prepared prepare(Options options);

}  // namespace profl
