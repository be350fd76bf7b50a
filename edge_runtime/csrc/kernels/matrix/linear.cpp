// Fully connected layers: matrix products over all leading dimensions of x as one of rows.
#include <algorithm>

#include "kernels/common/kernels.h"
#include "kernels/common/turn.h"
#include "kernels/matrix/gemm.h"
#include "kernels/optimizer/gradient_sink.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

// weight_grad[o][i] = sum over rows of grad[row][o] * x[row][i], block by block into the sink.
void weight_gradient(const Tensor& grad, const Tensor& x, const GradientSink& sink) {
  constexpr int64_t kMostOutputs = 192, kLeastOutputs = 48, kInputs = 384;
  static_assert(kGemmWorkspaceBytes + kMostOutputs * kInputs * sizeof(float) <= kWorkspaceBytesPerThread);
  const int64_t outputs = grad.size(grad.dim() - 1), inputs = x.size(x.dim() - 1), rows = x.numel() / inputs;
  const float *gradient = grad.const_data_ptr<float>(), *values = x.const_data_ptr<float>();
  // Values are packed again for every block of outputs, so blocks are large, but every thread has the same share.
  const int64_t across = ceil_div(inputs, kInputs);
  int64_t together = kMostOutputs;
  while (together > kLeastOutputs && ceil_div(outputs, together) * across % thread_count() != 0) together /= 2;
  const int64_t down = ceil_div(outputs, together);
  parallel_for(down * across, [&](int64_t task, float* workspace) {
    const int64_t o = task / across * together, i = task % across * kInputs;
    float* block = workspace + kGemmWorkspaceBytes / sizeof(float);
    Gemm product{};
    product.m = std::min(together, outputs - o);
    product.n = std::min(kInputs, inputs - i);
    product.k = rows;
    product.a = gradient + o;
    product.lda = outputs;
    product.transpose_a = true;
    product.b = values + i;
    product.ldb = inputs;
    product.c = block;
    product.ldc = product.n;
    gemm(product, workspace);
    for (int64_t r = 0; r < product.m; ++r) sink.put(block + r * product.n, (o + r) * inputs + i, product.n);
  });
}

}  // namespace

void linear(Context&, Stack stack) {
  const Arguments a(stack);
  const int64_t inputs = a.size(1, 1), outputs = a.size(1, 0), rows = a.elements(0) / inputs;
  Gemm product{};
  product.m = rows;
  product.n = outputs;
  product.k = inputs;
  product.a = a.read(0);
  product.lda = product.ldb = inputs;
  product.b = a.read(1);
  product.transpose_b = true;
  product.c = a.write(3);
  product.ldc = outputs;
  product.bias = a.read(2);
  gemm_parallel(product);
}

void linear_input_grad(Context&, Stack stack) {
  const Arguments a(stack);
  const int64_t inputs = a.size(1, 1), outputs = a.size(1, 0);
  Gemm product{};
  product.m = a.elements(0) / outputs;
  product.n = inputs;
  product.k = outputs;
  product.a = a.read(0);
  product.lda = outputs;
  product.b = a.read(1);
  product.ldb = inputs;
  product.c = a.write(2);
  product.ldc = inputs;
  gemm_parallel(product);
}

void linear_weight_grad(Context&, Stack stack) {
  const Arguments a(stack);
  weight_gradient(a.tensor(0), a.tensor(1), GradientSink(a.write(2)));
}

void linear_weight_grad_sgd(Context&, Stack stack) {
  const Arguments a(stack);
  weight_gradient(a.tensor(0), a.tensor(1), GradientSink(a, 2));
}

}  // namespace profl
