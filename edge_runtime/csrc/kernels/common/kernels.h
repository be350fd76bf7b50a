// Every operator of the `profl` namespace. The order of each stack is in docs/operators.md.
#pragma once

#include "kernels/common/stack.h"

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
void group_norm(Context& context, Stack stack);
void group_norm_backward(Context& context, Stack stack);
void activation(Context& context, Stack stack);
void activation_backward(Context& context, Stack stack);
void add(Context& context, Stack stack);
void arithmetic(Context& context, Stack stack);
void affine(Context& context, Stack stack);
void broadcast(Context& context, Stack stack);
void sum_to(Context& context, Stack stack);
void permute(Context& context, Stack stack);
void cat(Context& context, Stack stack);
void crop(Context& context, Stack stack);
void max_pool2d(Context& context, Stack stack);
void max_pool2d_backward(Context& context, Stack stack);
void average_pool2d(Context& context, Stack stack);
void average_pool2d_backward(Context& context, Stack stack);
void global_average_pool(Context& context, Stack stack);
void global_average_pool_backward(Context& context, Stack stack);
void resample2d(Context& context, Stack stack);
void resample2d_backward(Context& context, Stack stack);
void linear(Context& context, Stack stack);
void linear_input_grad(Context& context, Stack stack);
void linear_weight_grad(Context& context, Stack stack);
void linear_weight_grad_sgd(Context& context, Stack stack);
void channel_sum(Context& context, Stack stack);
void cross_entropy(Context& context, Stack stack);
void mean_squared_error(Context& context, Stack stack);
void layer_norm(Context& context, Stack stack);
void layer_norm_apply(Context& context, Stack stack);
void layer_norm_backward(Context& context, Stack stack);
void gelu(Context& context, Stack stack);
void gelu_backward(Context& context, Stack stack);
void softmax(Context& context, Stack stack);
void softmax_backward(Context& context, Stack stack);
void attention(Context& context, Stack stack);
void attention_backward(Context& context, Stack stack);
void matmul(Context& context, Stack stack);
void embedding(Context& context, Stack stack);
void embedding_weight_grad(Context& context, Stack stack);
void dropout(Context& context, Stack stack);
void strided_copy(Context& context, Stack stack);
void strided_copy_backward(Context& context, Stack stack);
void adamw(Context& context, Stack stack);
void clip_factor(Context& context, Stack stack);
void scale_by(Context& context, Stack stack);
void sgd(Context& context, Stack stack);
void fill(Context& context, Stack stack);
void is_set(Context& context, Stack stack);

}  // namespace profl
