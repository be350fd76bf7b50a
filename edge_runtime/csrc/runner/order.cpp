#include "runner/order.h"

#include <cmath>

#include "device/examples.h"

namespace profl {
namespace {

constexpr uint64_t kAugmentation = 0x61756701;

uint64_t mix(uint64_t value) {
  value += 0x9E3779B97F4A7C15u;
  value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9u;
  value = (value ^ value >> 27) * 0x94D049BB133111EBu;
  return value ^ value >> 31;
}

}  // namespace

uint64_t epoch_start(int64_t seed, int64_t epoch) {
  return mix(mix(static_cast<uint64_t>(seed)) ^ static_cast<uint64_t>(epoch));
}

uint64_t augmentation_start(int64_t seed, int64_t epoch) { return mix(epoch_start(seed, epoch) ^ kAugmentation); }

std::vector<int64_t> Batches::indices(int64_t step) {
  const int64_t position = step % per_epoch;
  if (epoch(step) != epoch_) {
    std::vector<uint32_t>().swap(order_);  // two never live at once
    epoch_ = epoch(step);
    order_ = hashed_order(epoch_start(seed_, epoch_), static_cast<uint32_t>(examples_));
  }
  const auto first = order_.begin() + position * batch_;
  return {first, first + batch_};
}

double usual_rate(const ProgramManifest& program) {
  if (!program.optimizer) return 0;
  const bool distills = program.kind == "distill";
  if (program.optimizer->name == "adamw") return 3e-4;
  return distills ? 1e-4 : 0.005;
}

std::vector<float> hyperparameters(const ProgramManifest& program, double learning_rate, double proximal_mu,
                                   int64_t position, int64_t step) {
  if (!program.optimizer) return {};
  const OptimizerSettings& optimizer = *program.optimizer;
  const int64_t count = program.batch / program.micro_batch;
  const bool apart = count > 1 && !optimizer.sums_in_momentum();
  const bool first = position == 0 || apart, last = position == count - 1 || apart;
  std::vector<double> values;
  if (optimizer.name == "adamw") {
    const auto steps = static_cast<double>(step + 1);
    values = {learning_rate, 1.0 / (1.0 - std::pow(optimizer.beta1, steps)),
              1.0 / std::sqrt(1.0 - std::pow(optimizer.beta2, steps)), optimizer.weight_decay};
  } else {
    values = {last ? learning_rate : 0.0, first ? optimizer.momentum : 1.0, first ? optimizer.weight_decay : 0.0,
              optimizer.nesterov ? 1.0 : 0.0};
    if (optimizer.proximal) values.push_back(first ? proximal_mu : 0.0);
  }
  if (apart) values.push_back(position == count - 1 ? 1.0 : 0.0);
  return {values.begin(), values.end()};
}

}  // namespace profl
