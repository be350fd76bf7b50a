// The command line of profl-train: options of `profl-edge train` and, with --evaluate, of `eval`, with the same
// meaning.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runner/inputs/chosen_program.h"

namespace profl {

struct Options {
  std::string bundle, data, output, split;
  Wanted wanted;
  std::optional<int64_t> steps;
  std::optional<double> epochs, max_seconds, learning_rate, proximal_mu;
  std::string augment;
  std::optional<int64_t> augment_seed, augment_epoch;
  int64_t seed = 0, threads = 0, checkpoint_every = 100;
  std::vector<std::string> weights;
  bool initial_prefix = false, resume = false, json = false, evaluates = false;
  std::string base_version;
  std::optional<uint64_t> limit_bytes;
};

// Throws Failure that names the option. Prints the help or the version, and returns nothing, where they are asked for.
std::optional<Options> parse_options(int count, char** words);

// Physical cores that this process may use, at least 1.
int usable_cores();

}  // namespace profl
