#include "runner/evaluation.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "device/process.h"
#include "runner/example_reader.h"
#include "runner/files/failure.h"
#include "runner/files/json_text.h"
#include "runner/loaded_program.h"
#include "runner/prepared.h"
#include "runner/progress_line.h"
#include "runner/report.h"

namespace profl {
namespace {

// Mean squared error of one example.
double squared_error(const float* outputs, const float* targets, size_t count) {
  long double sum = 0;
  for (size_t i = 0; i < count; ++i) {
    const double difference = static_cast<double>(outputs[i]) - static_cast<double>(targets[i]);
    sum += difference * difference;
  }
  return static_cast<double>(sum) / static_cast<double>(count);
}

// Cross-entropy in nats.
double cross_entropy(const float* logits, size_t classes, size_t label) {
  const double largest = *std::max_element(logits, logits + classes);
  long double sum = 0;
  for (size_t i = 0; i < classes; ++i) sum += std::exp(static_cast<double>(logits[i]) - largest);
  return std::log(static_cast<double>(sum)) - (static_cast<double>(logits[label]) - largest);
}

class Evaluation {
 public:
  Evaluation(const Options& options, const ProgramManifest& program, const Example& wanted, ExampleReader examples,
             LoadedProgram& loaded)
      : options_(options),
        program_(program),
        classes_(static_cast<size_t>(wanted.classes)),
        labels_(static_cast<size_t>(std::max<int64_t>(wanted.positions, 1))),
        targets_(wanted.targets != 0),
        examples_(std::move(examples)),
        loaded_(loaded) {}

  void run(const OwnGroup* group) {
    const float* const outputs = loaded_.outputs(static_cast<size_t>(program_.micro_batch) * labels_ * classes_);
    loaded_.promise([this] { examples_.rehearse(); }, options_.limit_bytes, group, static_cast<int>(options_.threads));
    loaded_.load_tensors();
    ProgressLine line(0, examples_.size());
    for (int64_t start = 0; start < examples_.size(); start += program_.micro_batch) {
      const int64_t end = std::min(examples_.size(), start + program_.micro_batch);
      // Rows behind the last example hold it once more: what lies there otherwise may be no token.
      std::vector<int64_t> indices(static_cast<size_t>(program_.micro_batch), end - 1);
      std::iota(indices.begin(), indices.begin() + (end - start), start);
      examples_.fetch(indices, std::nullopt, loaded_.data(), nullptr);
      loaded_.execute();
      for (int64_t index = start; index < end; ++index) {
        add(outputs + static_cast<size_t>(index - start) * labels_ * classes_, static_cast<size_t>(index));
      }
      if (std::isnan(loss_)) {
        fail(program_.name + ": the loss of the examples up to " + std::to_string(end - 1) +
             " is nan; the weights or the data hold NaN or too large values; correct them");
      }
      line.update(end, loss_ / static_cast<double>(std::max<int64_t>(counted_, 1)));
    }
    if (counted_ == 0) {
      fail(program_.name + ": no label of the " + std::to_string(examples_.size()) + " examples counts; evaluate more");
    }
  }

  std::optional<double> accuracy() const {
    if (targets_) return std::nullopt;
    return static_cast<double>(right_) / static_cast<double>(counted_);
  }
  double loss() const { return loss_ / static_cast<double>(counted_); }
  int64_t examples() const { return examples_.size(); }

 private:
  void add(const float* outputs, size_t index) {
    if (targets_) {
      loss_ += squared_error(outputs, examples_.data().targets.data() + index * classes_, classes_);
      ++counted_;
      return;
    }
    for (size_t i = 0; i < labels_; ++i, outputs += classes_) {
      const int32_t label = examples_.data().labels[index * labels_ + i];
      if (label == kIgnoredLabel) continue;
      ++counted_;
      right_ += std::max_element(outputs, outputs + classes_) - outputs == label;
      loss_ += cross_entropy(outputs, classes_, static_cast<size_t>(label));
    }
  }

  const Options& options_;
  const ProgramManifest& program_;
  size_t classes_, labels_;  // logits of a label, labels of an example
  bool targets_;
  ExampleReader examples_;
  LoadedProgram& loaded_;
  int64_t right_ = 0, counted_ = 0;
  double loss_ = 0;
};

}  // namespace

int evaluate(const Options& options, const OwnGroup* group) {
  const Manifest manifest = Manifest::read(options.bundle);
  Wanted wanted = options.wanted;
  wanted.purpose = "eval";
  if (!wanted.block) wanted.block = static_cast<int64_t>(manifest.blocks.size());
  const ProgramManifest& program = chosen_program(wanted, manifest);
  const Example example = example_of(manifest, program);
  DataSet data = open_data(options.data, example, options.split);
  data.check(example);
  const LaidWeights weights(manifest, options.weights);
  weights.check_whole(program, options.initial_prefix);
  const std::string path = manifest.verified("programs/" + program.name + ".pte");
  LoadedProgram loaded(program, path, weights, static_cast<int>(options.threads));
  if (options.weights.empty() && !options.initial_prefix && isatty(STDERR_FILENO) == 1) {
    std::fputs("note: without --weights, the bundle's initial weights are evaluated\n", stderr);
  }
  Evaluation evaluation(options, program, example, {std::move(data), example}, loaded);
  evaluation.run(group);
  const Scores scores{evaluation.accuracy(), evaluation.loss(), evaluation.examples(), weights.initial_blocks(program)};
  const std::string text =
      options.json ? json_scores(options, program, loaded, scores) : table_of_scores(program, loaded, scores);
  std::puts(text.c_str());
  return 0;
}

}  // namespace profl
