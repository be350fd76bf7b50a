// Cross-entropy and its gradient in one pass, as a share of the mean over `examples`.
#include <cmath>

#include "kernels/kernels.h"

namespace profl {

void cross_entropy(Context& context, Stack stack) {
  const Arguments a(stack);
  const int64_t batch = a.size(0, 0), classes = a.size(0, 1);
  const float* logits = a.read(0);
  const int64_t* labels = a.tensor(1).const_data_ptr<int64_t>();
  const double examples = static_cast<double>(a.integer(2));
  float* gradient = a.write(4);
  for (int64_t n = 0; n < batch; ++n) {
    if (labels[n] < 0 || labels[n] >= classes) {
      context.fail(Error::InvalidArgument);
      return;
    }
  }
  double loss = 0;
  for (int64_t n = 0; n < batch; ++n) {
    const float* row = logits + n * classes;
    float largest = row[0];
    for (int64_t k = 1; k < classes; ++k) largest = row[k] > largest ? row[k] : largest;
    double total = 0;
    for (int64_t k = 0; k < classes; ++k) total += std::exp(static_cast<double>(row[k]) - largest);
    loss += std::log(total) + largest - static_cast<double>(row[labels[n]]);
    if (gradient == nullptr) continue;
    for (int64_t k = 0; k < classes; ++k) {
      const double probability = std::exp(static_cast<double>(row[k]) - largest) / total;
      gradient[n * classes + k] = static_cast<float>((probability - (k == labels[n] ? 1.0 : 0.0)) / examples);
    }
  }
  *a.write(3) = static_cast<float>(loss / examples);
}

}  // namespace profl
