// Cross-entropy with its gradient in one pass, as a share of the mean over `examples`, or as the mean over the labels
// that count.
#include <algorithm>
#include <cmath>

#include "kernels/common/kernels.h"

namespace profl {
namespace {

constexpr int64_t kIgnored = -100;  // a label that does not count, as in PyTorch

struct Row {
  double total, log_total, sum;  // of e^(x - largest), its logarithm, and of x - largest
  float largest;
};

Row row_of(const float* logits, int64_t classes) {
  Row row{0, 0, 0, logits[0]};
  for (int64_t k = 1; k < classes; ++k) row.largest = logits[k] > row.largest ? logits[k] : row.largest;
  for (int64_t k = 0; k < classes; ++k) {
    const double shifted = static_cast<double>(logits[k]) - row.largest;
    row.total += std::exp(shifted);
    row.sum += shifted;
  }
  row.log_total = std::log(row.total);
  return row;
}

// The loss and the gradient as the share of a mean over `examples` labels; `ignores` says that labels may be kIgnored,
// and `examples` of 0 that the mean is over all others.
void share_of_mean(Context& context, const Arguments& a, double examples, bool ignores, size_t smoothing_at) {
  const int64_t batch = a.size(0, 0), classes = a.size(0, 1);
  const float* logits = a.read(0);
  const int64_t* labels = a.tensor(1).const_data_ptr<int64_t>();
  const double smoothing = a.exact_number(smoothing_at);
  float* gradient = a.write(smoothing_at + 2);
  const auto is_label = [&](int64_t label) {
    return (label >= 0 && label < classes) || (ignores && label == kIgnored);
  };
  if (!std::all_of(labels, labels + batch, is_label)) {
    context.fail(Error::InvalidArgument);
    return;
  }
  if (examples == 0) {
    examples = static_cast<double>(std::max<int64_t>(1, batch - std::count(labels, labels + batch, kIgnored)));
  }
  double loss = 0;
  const double spread = smoothing / static_cast<double>(classes);
  for (int64_t n = 0; n < batch; ++n) {
    const float* values = logits + n * classes;
    const Row row = row_of(values, classes);
    // Asked again: a program from a stranger may have let the gradient overwrite it.
    const int64_t label = labels[n];
    if (!is_label(label)) {
      context.fail(Error::InvalidArgument);
      return;
    }
    if (label == kIgnored) {
      if (gradient != nullptr) std::fill_n(gradient + n * classes, classes, 0.0f);
      continue;
    }
    loss += row.log_total - (1.0 - smoothing) * (static_cast<double>(values[label]) - row.largest) - spread * row.sum;
    if (gradient == nullptr) continue;
    for (int64_t k = 0; k < classes; ++k) {
      const double probability = std::exp(static_cast<double>(values[k]) - row.largest) / row.total;
      const double wanted = (k == label ? 1.0 - smoothing : 0.0) + spread;
      gradient[n * classes + k] = static_cast<float>((probability - wanted) / examples);
    }
  }
  *a.write(smoothing_at + 1) = static_cast<float>(loss / examples);
}

}  // namespace

// Label smoothing takes `smoothing` of the weight off the label and spreads it evenly over all classes. `examples` of 0
// means that labels may be kIgnored and the mean is over all others; where there are none, it is 0.
void cross_entropy(Context& context, Stack stack) {
  const Arguments a(stack);
  share_of_mean(context, a, static_cast<double>(a.integer(2)), a.integer(2) == 0, 3);
}

// The same as a share of the mean over the labels of a whole batch that count. How many these are is the hyperparameter
// at `place`; fewer than 1 count as 1.
void cross_entropy_of_batch(Context& context, Stack stack) {
  const Arguments a(stack);
  share_of_mean(context, a, std::max(1.0, static_cast<double>(a.read(2)[a.integer(3)])), true, 4);
}

}  // namespace profl
