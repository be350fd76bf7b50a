#include "runner/report.h"

#include <algorithm>
#include <cstdio>

#include "device/process.h"
#include "kernels/tiles/gemm_tile.h"
#include "runner/files/json_text.h"

namespace profl {
namespace {

constexpr size_t kKeptSteps = 4096;

std::string or_null(const std::optional<double>& value) { return value ? json_number(*value) : "null"; }

std::string seconds(const StepTimes& times, double value) { return times.empty() ? "null" : json_number(value); }

template <typename... Values>
std::string line(const char* form, Values... values) {
  char text[512];
  std::snprintf(text, sizeof(text), form, values...);
  return text;
}

double megabytes(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

std::string object(const std::vector<std::pair<const char*, std::string>>& members) {
  std::string text = "{";
  for (const auto& [name, value] : members) text += (text.size() > 1 ? "," : "") + json_text(name) + ":" + value;
  return text + "}";
}

std::string list_of(const std::vector<int64_t>& numbers) {
  std::string text;
  for (const int64_t number : numbers) text += (text.empty() ? "" : ",") + std::to_string(number);
  return "[" + text + "]";
}

std::string initial_lines(const std::vector<int64_t>& blocks) {
  std::string text;
  for (const int64_t block : blocks) text += line("initial values block %lld\n", static_cast<long long>(block));
  return text;
}

// Rounded up: a limit that is set to what is printed is not below it.
double megabytes_up(uint64_t bytes) { return static_cast<double>((bytes * 10 + (1 << 20) - 1) >> 20) / 10; }

}  // namespace

void StepTimes::add(Seconds seconds) {
  if (count_ < kKeptSteps) {
    total_.push_back(seconds.total);
    prefix_.push_back(seconds.prefix);
  } else {
    total_[count_ % kKeptSteps] = seconds.total;
    prefix_[count_ % kKeptSteps] = seconds.prefix;
  }
  minimum = count_ == 0 ? seconds.total : std::min(minimum, seconds.total);
  maximum = std::max(maximum, seconds.total);
  ++count_;
}

double StepTimes::median_of(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::string json_report(const Options& options, const ProgramManifest& program, const LoadedProgram& loaded,
                        const StepTimes& times, const Outcome& outcome) {
  const Progress& progress = outcome.progress;
  const bool written = !options.output.empty() && !outcome.interrupted;
  return object({{"block", std::to_string(program.block)},
                 {"program", json_text(program.name)},
                 {"steps", std::to_string(progress.steps)},
                 {"examples", std::to_string(outcome.examples)},
                 {"loss_first", or_null(progress.loss_first)},
                 {"loss_last", or_null(progress.loss_last)},
                 {"loss_smoothed", or_null(progress.loss_smoothed)},
                 {"step_seconds_median", seconds(times, times.median())},
                 {"step_seconds_minimum", seconds(times, times.minimum)},
                 {"step_seconds_maximum", seconds(times, times.maximum)},
                 {"prefix_seconds", seconds(times, times.prefix_median())},
                 {"predicted_peak_bytes", std::to_string(loaded.predicted_bytes)},
                 {"measured_peak_bytes", std::to_string(resident_bytes().peak)},
                 {"base_bytes", std::to_string(loaded.base_bytes)},
                 {"arena_bytes", std::to_string(loaded.arena_bytes())},
                 {"frozen_bytes", std::to_string(program.memory.frozen)},
                 {"workspace_bytes",
                  std::to_string(program.memory.workspace_per_thread * static_cast<uint64_t>(options.threads))},
                 {"staging_bytes", std::to_string(program.memory.staging)},
                 {"threads", std::to_string(options.threads)},
                 {"instruction_set", json_text(tile_kernels().name)},
                 {"interrupted", outcome.interrupted ? "true" : "false"},
                 {"resumed_from", std::to_string(outcome.resumed_from)},
                 {"output", written ? json_text(options.output) : "null"},
                 {"limit_bytes", loaded.limit_bytes ? std::to_string(*loaded.limit_bytes) : "null"},
                 {"limit_kind", json_text(loaded.limit_kind)},
                 {"stopped_early", outcome.stopped_early ? "true" : "false"},
                 {"initial_blocks", list_of(outcome.initial_blocks)},
                 {"examples_done", std::to_string(progress.steps * program.batch)}});
}

std::string table(const Options& options, const ProgramManifest& program, const LoadedProgram& loaded,
                  const StepTimes& times, const Outcome& outcome) {
  const Progress& progress = outcome.progress;
  const char* state = outcome.interrupted ? "interrupted" : outcome.stopped_early ? "stopped early" : "done";
  std::string text = "block " + std::to_string(program.block) + " (" + program.name +
                     "): " + std::to_string(progress.steps) + " steps, " + state + "\n";
  if (progress.loss_last) {
    text += line("loss           %.4f -> %.4f (first and last batch)\n", *progress.loss_first, *progress.loss_last);
  }
  if (progress.loss_smoothed) text += line("smoothed loss  %.4f (latest batches)\n", *progress.loss_smoothed);
  if (!times.empty()) text += line("step           %.4f s (prefix %.4f s)\n", times.median(), times.prefix_median());
  text += line("promised peak  %.1f MB\n", megabytes_up(loaded.predicted_bytes));
  text += line("measured peak  %.1f MB (limit: %s)\n", megabytes(resident_bytes().peak), loaded.limit_kind.c_str());
  text += initial_lines(outcome.initial_blocks);
  if (!options.output.empty() && !outcome.interrupted) return text + "update         " + options.output;
  return text + (outcome.interrupted ? "update         none: --resume continues from the checkpoint"
                                     : "update         none: without -o, the result of this training is not kept");
}

std::string json_scores(const Options& options, const ProgramManifest& program, const LoadedProgram& loaded,
                        const Scores& scores) {
  return object({{"block", std::to_string(program.block)},
                 {"program", json_text(program.name)},
                 {"accuracy", or_null(scores.accuracy)},
                 {"loss", json_number(scores.loss)},
                 {"examples", std::to_string(scores.examples)},
                 {"initial_blocks", list_of(scores.initial_blocks)},
                 {"predicted_peak_bytes", std::to_string(loaded.predicted_bytes)},
                 {"measured_peak_bytes", std::to_string(resident_bytes().peak)},
                 {"arena_bytes", std::to_string(loaded.arena_bytes())},
                 {"base_bytes", std::to_string(loaded.base_bytes)},
                 {"threads", std::to_string(options.threads)}});
}

std::string table_of_scores(const ProgramManifest& program, const LoadedProgram& loaded, const Scores& scores) {
  std::string text = "block " + std::to_string(program.block) + " (" + program.name + "), " +
                     std::to_string(scores.examples) + " examples\n";
  if (scores.accuracy) text += line("accuracy       %.4f\n", *scores.accuracy);
  text += line("loss           %.4f\n", scores.loss) + initial_lines(scores.initial_blocks);
  text += line("promised peak  %.1f MB\n", megabytes_up(loaded.predicted_bytes));
  return text + line("measured peak  %.1f MB (limit: %s)", megabytes(resident_bytes().peak), loaded.limit_kind.c_str());
}

}  // namespace profl
