// The program that one command asks for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "runner/inputs/manifest.h"

namespace profl {

// Either a block, with what is done with it, or work by its units; neither where a bundle has one training step alone.
struct Wanted {
  std::optional<int64_t> block, first_block;
  std::string purpose, work, variant;  // empty where it was not given
};

// Throws Failure that names what there is.
const ProgramManifest& chosen_program(const Wanted& wanted, const Manifest& manifest);

}  // namespace profl
