#include "kernels/attention/attention_tile.h"

#include "kernels/common/row_sums.h"

namespace profl {

bool supported(Context& context, const AttentionProblem& p) {
  if (p.value_width <= kMaxWidth) return true;
  context.fail(Error::NotSupported);
  return false;
}

PROFL_WIDE_CLONES void finish_scores(float* scores, int64_t count, int64_t visible, float scale, const float* mask) {
  if (mask == nullptr) {
    for (int64_t j = 0; j < count; ++j) scores[j] *= scale;
  } else {
#pragma GCC ivdep
    for (int64_t j = 0; j < count; ++j) scores[j] = scores[j] * scale + mask[j];
  }
  for (int64_t j = std::max<int64_t>(0, visible); j < count; ++j) scores[j] = -kInfinity;
}

PROFL_WIDE_CLONES double exponentials(float* scores, int64_t count, float shift) {
  for (int64_t j = 0; j < count; ++j) scores[j] = exponential_of_fall(scores[j] - shift);
  return row_sum(count, [scores](int64_t j) { return scores[j]; });
}

}  // namespace profl
