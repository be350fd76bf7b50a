// SGD, AdamW, and gradient clipping by the norm of all gradients together.
#include <algorithm>
#include <cmath>

#include "kernels/common/kernels.h"
#include "kernels/common/pieces.h"
#include "kernels/common/row_sums.h"
#include "kernels/optimizer/sgd_update.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

constexpr int64_t kTasks = 64;  // partial sums of a norm

struct AdamW {
  float rate, first_correction, root_correction, decay;  // filled in for every step
  float beta1, beta2, eps;
};

// torch.optim.AdamW: the parameter decays first, then moves by m / (sqrt(v) + eps), both corrected for their start at
// 0.
PROFL_CLONES void adamw_range(const AdamW& step, const float* parameter, const float* gradient, const float* first,
                              const float* second, float* new_parameter, float* new_first, float* new_second,
                              int64_t begin, int64_t end) {
  const AdamW s = step;
  const float keep = 1.0f - s.rate * s.decay, size = s.rate * s.first_correction;
#pragma GCC ivdep
  for (int64_t i = begin; i < end; ++i) {
    const float g = gradient[i];
    const float m = first[i] + (g - first[i]) * (1.0f - s.beta1);
    const float v = second[i] * s.beta2 + g * g * (1.0f - s.beta2);
    new_first[i] = m;
    new_second[i] = v;
    new_parameter[i] = parameter[i] * keep - size * m / (__builtin_sqrtf(v) * s.root_correction + s.eps);
  }
}

PROFL_CLONES double squares(const float* x, int64_t count) {
  return row_sum(count, [x](int64_t i) { return x[i] * x[i]; });
}

PROFL_CLONES void scale_range(const float* x, float factor, float* y, int64_t begin, int64_t end) {
#pragma GCC ivdep
  for (int64_t i = begin; i < end; ++i) y[i] = x[i] * factor;
}

double sum_of_squares(const float* x, int64_t elements) {
  // The cut follows from the number of elements alone, and the parts are added in their order.
  double parts[kTasks] = {};
  const int64_t each = (elements + kTasks - 1) / kTasks;
  parallel_for(kTasks, [&](int64_t task, float*) {
    const int64_t first = std::min(elements, task * each);
    parts[task] = squares(x + first, std::min(elements, first + each) - first);
  });
  double total = 0;
  for (double part : parts) total += part;
  return total;
}

}  // namespace

void sgd(Context&, Stack stack) {
  const Arguments a(stack);
  const SgdUpdate update(a.tensor(2));
  const SgdUpdate::Tensors tensors(a, 0, 3);
  pieces(a.elements(0),
         [&](int64_t first, int64_t last) { update.apply(a.read(1) + first, tensors.from(first), last - first); });
}

void adamw(Context&, Stack stack) {
  const Arguments a(stack);
  const float* filled = a.read(2);
  const AdamW step{filled[0], filled[1], filled[2], filled[3], a.number(5), a.number(6), a.number(7)};
  pieces(a.elements(0), [&](int64_t first, int64_t last) {
    adamw_range(step, a.read(0), a.read(1), a.read(3), a.read(4), a.write(8), a.write(9), a.write(10), first, last);
  });
}

// As torch.nn.utils.clip_grad_norm_: the factor max_norm / (norm + 1e-6), at most 1.
void clip_factor(Context&, Stack stack) {
  const Arguments a(stack);
  double total = 0;
  for (size_t i = 1; i + 1 < stack.size(); ++i) total += sum_of_squares(a.read(i), a.elements(i));
  const double factor = a.number(0) / (std::sqrt(total) + 1e-6);
  // A norm that is not a number stays visible in what it scales.
  *a.write(stack.size() - 1) = static_cast<float>(factor > 1.0 ? 1.0 : factor);
}

void scale_by(Context&, Stack stack) {
  const Arguments a(stack);
  const float factor = *a.read(1);
  pieces(a.elements(0), [&](int64_t first, int64_t last) { scale_range(a.read(0), factor, a.write(2), first, last); });
}

}  // namespace profl
