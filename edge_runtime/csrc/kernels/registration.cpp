// Registers the operators with ExecuTorch when this library is loaded.
#include <executorch/runtime/kernel/operator_registry.h>

#include "kernels/kernels.h"

namespace profl {
namespace {

using ::executorch::runtime::Kernel;

const Kernel kKernels[] = {
    Kernel("profl::conv2d.out", conv2d),
    Kernel("profl::conv2d_input_grad.out", conv2d_input_grad),
    Kernel("profl::conv2d_weight_grad.out", conv2d_weight_grad),
    Kernel("profl::conv2d_weight_grad_sgd.out", conv2d_weight_grad_sgd),
    Kernel("profl::conv2d_frozen.out", conv2d_frozen),
    Kernel("profl::batch_norm_train.out", batch_norm_train),
    Kernel("profl::batch_norm_apply.out", batch_norm_apply),
    Kernel("profl::batch_norm_backward.out", batch_norm_backward),
    Kernel("profl::batch_norm_frozen.out", batch_norm_frozen),
    Kernel("profl::group_norm.out", group_norm),
    Kernel("profl::group_norm_backward.out", group_norm_backward),
    Kernel("profl::activation.out", activation),
    Kernel("profl::activation_backward.out", activation_backward),
    Kernel("profl::add.out", add),
    Kernel("profl::arithmetic.out", arithmetic),
    Kernel("profl::affine.out", affine),
    Kernel("profl::broadcast.out", broadcast),
    Kernel("profl::sum_to.out", sum_to),
    Kernel("profl::permute.out", permute),
    Kernel("profl::cat.out", cat),
    Kernel("profl::crop.out", crop),
    Kernel("profl::max_pool2d.out", max_pool2d),
    Kernel("profl::max_pool2d_backward.out", max_pool2d_backward),
    Kernel("profl::average_pool2d.out", average_pool2d),
    Kernel("profl::average_pool2d_backward.out", average_pool2d_backward),
    Kernel("profl::global_average_pool.out", global_average_pool),
    Kernel("profl::global_average_pool_backward.out", global_average_pool_backward),
    Kernel("profl::resample2d.out", resample2d),
    Kernel("profl::resample2d_backward.out", resample2d_backward),
    Kernel("profl::linear.out", linear),
    Kernel("profl::linear_input_grad.out", linear_input_grad),
    Kernel("profl::linear_weight_grad.out", linear_weight_grad),
    Kernel("profl::linear_weight_grad_sgd.out", linear_weight_grad_sgd),
    Kernel("profl::channel_sum.out", channel_sum),
    Kernel("profl::cross_entropy.out", cross_entropy),
    Kernel("profl::mean_squared_error.out", mean_squared_error),
    Kernel("profl::layer_norm.out", layer_norm),
    Kernel("profl::layer_norm_apply.out", layer_norm_apply),
    Kernel("profl::layer_norm_backward.out", layer_norm_backward),
    Kernel("profl::gelu.out", gelu),
    Kernel("profl::gelu_backward.out", gelu_backward),
    Kernel("profl::softmax.out", softmax),
    Kernel("profl::softmax_backward.out", softmax_backward),
    Kernel("profl::attention.out", attention),
    Kernel("profl::attention_backward.out", attention_backward),
    Kernel("profl::matmul.out", matmul),
    Kernel("profl::embedding.out", embedding),
    Kernel("profl::embedding_weight_grad.out", embedding_weight_grad),
    Kernel("profl::dropout.out", dropout),
    Kernel("profl::strided_copy.out", strided_copy),
    Kernel("profl::strided_copy_backward.out", strided_copy_backward),
    Kernel("profl::adamw.out", adamw),
    Kernel("profl::clip_factor.out", clip_factor),
    Kernel("profl::scale_by.out", scale_by),
    Kernel("profl::sgd.out", sgd),
    Kernel("profl::fill.out", fill),
    Kernel("profl::is_set.out", is_set),
};

[[maybe_unused]] const auto kRegistered =
    ::executorch::runtime::register_kernels({kKernels, sizeof(kKernels) / sizeof(kKernels[0])});

}  // namespace
}  // namespace profl
