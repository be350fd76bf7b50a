#include "runner/training.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <memory>

#include "device/process.h"
#include "runner/checkpoint.h"
#include "runner/example_reader.h"
#include "runner/files/failure.h"
#include "runner/files/json_text.h"
#include "runner/files/output_file.h"
#include "runner/loaded_program.h"
#include "runner/order.h"
#include "runner/prepared.h"
#include "runner/progress_line.h"
#include "runner/report.h"

namespace profl {
namespace {

constexpr double kAbsurd = 1e4;         // so far above the first loss, no later step makes something of the weights
constexpr int64_t kSmoothedSteps = 20;  // that weigh in the smoothed loss
constexpr int kInterrupted = 128 + SIGINT;

class Training {
 public:
  explicit Training(Prepared prepared)
      : prepared_(std::move(prepared)),
        options_(prepared_.options),
        program_(prepared_.program),
        loaded_(*prepared_.loaded),
        batches_(options_.seed, prepared_.examples->size(), program_.batch),
        started_(Clock::now()) {
    outcome_.examples = prepared_.examples->size();
    outcome_.initial_blocks = prepared_.initial_blocks;
    outcome_.progress = prepared_.progress;
    outcome_.resumed_from = prepared_.progress.steps;
  }

  int run(const OwnGroup* group) {
    note_stop_signals();
    loaded_.promise([this] { rehearse(); }, options_.limit_bytes, group, static_cast<int>(options_.threads));
    loaded_.load_tensors();
    if (prepared_.checkpoint) loaded_.read_state(*prepared_.checkpoint);
    prepared_.checkpoint.reset();
    loop();
    const int signal = noted_signal();
    outcome_.interrupted = signal != 0 && progress().steps < prepared_.steps && !outcome_.stopped_early;
    if (!options_.output.empty() && progress().loss_last) save();
    end_on_stop_signals();
    const auto report = options_.json ? json_report : table;
    std::puts(report(options_, program_, loaded_, times_, outcome_).c_str());
    return outcome_.interrupted && signal == SIGINT ? kInterrupted : 0;
  }

 private:
  using Clock = std::chrono::steady_clock;

  Progress& progress() { return outcome_.progress; }

  void rehearse() {
    loaded_.set_hyperparameters(hyperparameters(program_, 0, 0, 0, 0));
    batches_.indices(progress().steps);
    prepared_.examples->rehearse();
  }

  double passed() const { return std::chrono::duration<double>(Clock::now() - started_).count(); }

  void loop() {
    ProgressLine line(progress().steps, prepared_.steps);
    while (progress().steps < prepared_.steps && noted_signal() == 0) {
      const double loss = step(progress().steps);
      const int64_t done = ++progress().steps;
      if (!progress().loss_first) progress().loss_first = loss;
      progress().loss_last = loss;
      const double before = progress().loss_smoothed.value_or(loss);
      progress().loss_smoothed =
          before + (loss - before) * std::max(1.0 / static_cast<double>(done), 1.0 / kSmoothedSteps);
      line.update(done, *progress().loss_smoothed);
      if (done == prepared_.steps) break;
      if (options_.max_seconds && passed() >= *options_.max_seconds) {
        outcome_.stopped_early = true;
        break;
      }
      const bool due = options_.checkpoint_every > 0 && done % options_.checkpoint_every == 0;
      if (due && !options_.output.empty()) write_checkpoint();
    }
  }

  double step(int64_t step) {
    const std::vector<int64_t> indices = batches_.indices(step);
    const int64_t executions = program_.batch / program_.micro_batch;
    std::optional<uint64_t> augmentation;
    if (!options_.augment.empty()) {
      augmentation = augmentation_start(options_.augment_seed.value_or(options_.seed),
                                        options_.augment_epoch.value_or(0) + batches_.epoch(step));
    }
    double loss = 0;
    Seconds seconds{};
    for (int64_t position = 0; position < executions; ++position) {
      const auto first = indices.begin() + position * program_.micro_batch;
      prepared_.examples->fetch({first, first + program_.micro_batch}, augmentation, loaded_.data(), loaded_.labels());
      auto values =
          hyperparameters(program_, prepared_.learning_rate, options_.proximal_mu.value_or(0), position, step);
      if (program_.counts_labels()) values.push_back(static_cast<float>(prepared_.examples->counted(indices)));
      loaded_.set_hyperparameters(values);
      loaded_.set_random(options_.seed, step * executions + position);
      const Seconds one = loaded_.execute();
      loss += static_cast<double>(loaded_.loss());
      seconds.total += one.total;
      seconds.prefix += one.prefix;
    }
    times_.add(seconds);
    const bool absurd = progress().loss_first && loss > kAbsurd * std::max(1.0, *progress().loss_first);
    if (!std::isfinite(loss) || absurd) {
      char text[64];
      std::snprintf(text, sizeof(text), "the loss is %g", loss);
      diverged(step + 1, text, step > 0);
    }
    return loss;
  }

  // `updated`: the tensors have been changed, which the learning rate could have been too large for.
  [[noreturn]] void diverged(int64_t step, const std::string& what, bool updated) const {
    const bool kept = !options_.output.empty() && access(checkpoint_path(options_.output).c_str(), F_OK) == 0;
    throw Failure{
        "step " + std::to_string(step) + " of " + program_.name + ": " + what + "; " +
            (updated ? "try a smaller --lr" : "the data or the weights hold NaN or too large values; correct them") +
            (kept ? " (the last checkpoint is kept)" : ""),
        updated ? kDiverged : kFailed};
  }

  // A loss is that of the step before: what the last update made of the tensors shows only in themselves.
  void check_finite(const std::vector<TensorView>& tensors) const {
    for (const TensorView& tensor : tensors) {
      const auto count = static_cast<size_t>(elements_of(tensor.shape));
      if (tensor.dtype != "float32" || is_finite(static_cast<const float*>(tensor.data), count)) continue;
      diverged(outcome_.progress.steps, "tensor '" + tensor.name + "' has a value that is not finite", true);
    }
  }

  void write_checkpoint() {
    const std::vector<TensorView> state = loaded_.state_tensors();
    check_finite(state);
    write_tensors(checkpoint_path(options_.output), state, "profl_checkpoint",
                  checkpoint_text(prepared_.settings, progress()));
  }

  void save() {
    if (outcome_.interrupted) {
      write_checkpoint();
      return;
    }
    const std::vector<TensorView> trained = loaded_.trained_tensors();
    check_finite(trained);
    const Progress& done = progress();
    const std::string metadata =
        "{\"block\":" + std::to_string(program_.block) + ",\"program\":" + json_text(program_.name) +
        ",\"examples\":" + std::to_string(outcome_.examples) + ",\"steps\":" + std::to_string(done.steps) +
        ",\"base_version\":" + json_text(prepared_.base_version) + ",\"loss_first\":" + json_number(*done.loss_first) +
        ",\"loss_last\":" + json_number(*done.loss_last) +
        ",\"examples_done\":" + std::to_string(done.steps * program_.batch) +
        ",\"stopped_early\":" + (outcome_.stopped_early ? "true" : "false") + "}";
    write_tensors(options_.output, trained, "profl", metadata);
    unlink(checkpoint_path(options_.output).c_str());
  }

  Prepared prepared_;
  const Options& options_;
  const ProgramManifest& program_;
  LoadedProgram& loaded_;
  Batches batches_;
  Clock::time_point started_;
  StepTimes times_;
  Outcome outcome_;
};

}  // namespace

int train(Options options, const OwnGroup* group) {
  std::unique_ptr<OutputLock> lock;
  if (!options.output.empty()) {
    options.output = checked_output(options.output);
    lock = std::make_unique<OutputLock>(options.output);
    remove_leftovers(options.output);
    remove_leftovers(checkpoint_path(options.output));
  }
  return Training(prepare(std::move(options))).run(group);
}

}  // namespace profl
