// Fully connected layers. Heads are small here: plain loops over contiguous rows, summed in double.
#include "kernels/kernels.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

PROFL_CLONES double dot(const float* a, const float* b, int64_t count) {
  constexpr int kPartial = 16;
  float partial[kPartial] = {};
  int64_t i = 0;
  for (; i + kPartial <= count; i += kPartial) {
    for (int k = 0; k < kPartial; ++k) partial[k] += a[i + k] * b[i + k];
  }
  double total = 0;
  for (int k = 0; k < kPartial; ++k) total += partial[k];
  for (; i < count; ++i) total += static_cast<double>(a[i]) * b[i];
  return total;
}

PROFL_CLONES void accumulate(float factor, const float* row, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] += factor * row[i];
}

}  // namespace

void linear(Context&, Stack stack) {
  const Arguments a(stack);
  const int64_t inputs = a.size(1, 1), outputs = a.size(1, 0);
  const float *x = a.read(0), *weight = a.read(1), *bias = a.read(2);
  float* out = a.write(3);
  parallel_for(a.size(0, 0), [&](int64_t n, float*) {
    for (int64_t o = 0; o < outputs; ++o) {
      const double sum = dot(x + n * inputs, weight + o * inputs, inputs);
      out[n * outputs + o] = static_cast<float>(sum + (bias == nullptr ? 0.0 : bias[o]));
    }
  });
}

void linear_input_grad(Context&, Stack stack) {
  const Arguments a(stack);
  const int64_t inputs = a.size(1, 1), outputs = a.size(1, 0);
  const float *gradient = a.read(0), *weight = a.read(1);
  float* out = a.write(2);
  parallel_for(a.size(0, 0), [&](int64_t n, float*) {
    float* row = out + n * inputs;
    for (int64_t i = 0; i < inputs; ++i) row[i] = 0.0f;
    for (int64_t o = 0; o < outputs; ++o) accumulate(gradient[n * outputs + o], weight + o * inputs, inputs, row);
  });
}

void linear_weight_grad(Context&, Stack stack) {
  const Arguments a(stack);
  const int64_t inputs = a.size(1, 1), outputs = a.size(0, 1), batch = a.size(0, 0);
  const float *gradient = a.read(0), *x = a.read(1);
  float* out = a.write(2);
  parallel_for(outputs, [&](int64_t o, float*) {
    float* row = out + o * inputs;
    for (int64_t i = 0; i < inputs; ++i) row[i] = 0.0f;
    for (int64_t n = 0; n < batch; ++n) accumulate(gradient[n * outputs + o], x + n * inputs, inputs, row);
  });
}

}  // namespace profl
