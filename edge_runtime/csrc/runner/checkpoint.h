// A checkpoint: how far a training was, and the settings that it belongs to. The files of `profl-edge train` are the
// same: either may continue what the other began.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace profl {

struct Progress {
  int64_t steps = 0;
  std::optional<double> loss_first, loss_last, loss_smoothed;
};

// By name, each as JSON writes it.
using Settings = std::vector<std::pair<std::string, std::string>>;

std::string checkpoint_path(const std::string& output);
// What the metadata of a checkpoint say.
std::string checkpoint_text(const Settings& settings, const Progress& progress);
// Reads it back; throws Failure, with the first setting that differs, where it belongs to another run.
Progress read_checkpoint(const std::string& path, const std::string& text, const Settings& settings);

}  // namespace profl
