// Every operator of the `profl` namespace. A stack is the arguments and then the outputs, as each kernel
// reads them and `edge_runtime/export/layers.py` writes them. The `_sgd` kernels are their namesakes and `sgd` in one:
//   conv2d_weight_grad_sgd: grad, x, stride, padding, dilation, groups, then
//   linear_weight_grad_sgd: grad, x, then
//     weight, hyperparameters, momentum buffer or none; weight, momentum buffer or none
#pragma once

#include "kernels/stack.h"

namespace profl {

void conv2d(Context& context, Stack stack);
void conv2d_input_grad(Context& context, Stack stack);
void conv2d_weight_grad(Context& context, Stack stack);
void conv2d_weight_grad_sgd(Context& context, Stack stack);
void conv2d_frozen(Context& context, Stack stack);
void batch_norm_train(Context& context, Stack stack);
void batch_norm_apply(Context& context, Stack stack);
void batch_norm_backward(Context& context, Stack stack);
void batch_norm_frozen(Context& context, Stack stack);
void relu(Context& context, Stack stack);
void relu_backward(Context& context, Stack stack);
void add(Context& context, Stack stack);
void max_pool2d(Context& context, Stack stack);
void max_pool2d_backward(Context& context, Stack stack);
void global_average_pool(Context& context, Stack stack);
void global_average_pool_backward(Context& context, Stack stack);
void linear(Context& context, Stack stack);
void linear_input_grad(Context& context, Stack stack);
void linear_weight_grad(Context& context, Stack stack);
void linear_weight_grad_sgd(Context& context, Stack stack);
void channel_sum(Context& context, Stack stack);
void cross_entropy(Context& context, Stack stack);
void sgd(Context& context, Stack stack);
void fill(Context& context, Stack stack);

}  // namespace profl
