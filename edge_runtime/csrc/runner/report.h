// What a training or an evaluation reports: its numbers as one JSON object, or as a table. Keys are those of
// profl-edge.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runner/checkpoint.h"
#include "runner/inputs/manifest.h"
#include "runner/loaded_program.h"
#include "runner/options.h"

namespace profl {

// Seconds of steps and of their frozen prefixes; the median is that of the latest 4096.
class StepTimes {
 public:
  void add(Seconds seconds);
  bool empty() const { return total_.empty(); }
  double median() const { return median_of(total_); }
  double prefix_median() const { return median_of(prefix_); }
  double minimum = 0, maximum = 0;

 private:
  static double median_of(std::vector<double> values);

  std::vector<double> total_, prefix_;
  size_t count_ = 0;
};

struct Outcome {
  Progress progress;
  int64_t examples = 0, resumed_from = 0;
  bool interrupted = false, stopped_early = false;
  std::vector<int64_t> initial_blocks;
};

// Of an evaluation; against targets there is no accuracy.
struct Scores {
  std::optional<double> accuracy;
  double loss;
  int64_t examples;
  std::vector<int64_t> initial_blocks;
};

std::string json_report(const Options& options, const ProgramManifest& program, const LoadedProgram& loaded,
                        const StepTimes& times, const Outcome& outcome);
std::string table(const Options& options, const ProgramManifest& program, const LoadedProgram& loaded,
                  const StepTimes& times, const Outcome& outcome);

std::string json_scores(const Options& options, const ProgramManifest& program, const LoadedProgram& loaded,
                        const Scores& scores);
std::string table_of_scores(const ProgramManifest& program, const LoadedProgram& loaded, const Scores& scores);

}  // namespace profl
