// Which examples a step sees and with which numbers it is made, from the seed and the step alone: as
// edge_runtime/device/worker/batches.py and edge_runtime/device/prepare/hyperparameters.py say.
#pragma once

#include <cstdint>
#include <vector>

#include "runner/inputs/manifest.h"

namespace profl {

uint64_t epoch_start(int64_t seed, int64_t epoch);
uint64_t augmentation_start(int64_t seed, int64_t epoch);

// The last examples of an epoch that do not fill a batch are left out.
class Batches {
 public:
  Batches(int64_t seed, int64_t examples, int64_t batch)
      : per_epoch(examples / batch), seed_(seed), examples_(examples), batch_(batch) {}

  int64_t epoch(int64_t step) const { return step / per_epoch; }
  std::vector<int64_t> indices(int64_t step);

  const int64_t per_epoch;

 private:
  int64_t seed_, examples_, batch_, epoch_ = -1;
  std::vector<uint32_t> order_;
};

// The rate where none is asked for.
double usual_rate(const ProgramManifest& program);

// Hyperparameters of execution `position` of the step (both 0-based).
std::vector<float> hyperparameters(const ProgramManifest& program, double learning_rate, double proximal_mu,
                                   int64_t position, int64_t step);

}  // namespace profl
