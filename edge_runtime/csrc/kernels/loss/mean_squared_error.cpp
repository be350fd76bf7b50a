// The mean squared error with its gradient in one pass, as a share of the mean over `examples`.
#include "kernels/common/kernels.h"

namespace profl {

// The mean over the examples and over what each of them has.
void mean_squared_error(Context&, Stack stack) {
  const Arguments a(stack);
  const int64_t elements = a.elements(0);
  const float *values = a.read(0), *targets = a.read(1);
  const double share = static_cast<double>(a.size(0, 0)) / (static_cast<double>(a.integer(2)) * elements);
  float* gradient = a.write(4);
  double loss = 0;
  for (int64_t i = 0; i < elements; ++i) {
    const double difference = static_cast<double>(values[i]) - targets[i];
    loss += difference * difference;
    if (gradient != nullptr) gradient[i] = static_cast<float>(2.0 * share * difference);
  }
  *a.write(3) = static_cast<float>(share * loss);
}

}  // namespace profl
