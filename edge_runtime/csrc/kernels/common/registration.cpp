// Registers the operators with ExecuTorch when this library is loaded.
#include <executorch/runtime/kernel/operator_registry.h>

#include "kernels/common/kernels.h"

namespace profl {
namespace {

using ::executorch::runtime::Kernel;

// An exception must not pass through ExecuTorch's frames, which have no way to unwind them.
template <void (*kernel)(Context&, Stack)>
void guarded(Context& context, Stack stack) noexcept {
  try {
    kernel(context, stack);
  } catch (...) {
    context.fail(Error::MemoryAllocationFailed);
  }
}

const Kernel kKernels[] = {
    Kernel("profl::conv2d.out", guarded<conv2d>),
    Kernel("profl::conv2d_input_grad.out", guarded<conv2d_input_grad>),
    Kernel("profl::conv2d_weight_grad.out", guarded<conv2d_weight_grad>),
    Kernel("profl::conv2d_weight_grad_sgd.out", guarded<conv2d_weight_grad_sgd>),
    Kernel("profl::conv2d_frozen.out", guarded<conv2d_frozen>),
    Kernel("profl::batch_norm_train.out", guarded<batch_norm_train>),
    Kernel("profl::batch_norm_apply.out", guarded<batch_norm_apply>),
    Kernel("profl::batch_norm_backward.out", guarded<batch_norm_backward>),
    Kernel("profl::batch_norm_frozen.out", guarded<batch_norm_frozen>),
    Kernel("profl::group_norm.out", guarded<group_norm>),
    Kernel("profl::group_norm_backward.out", guarded<group_norm_backward>),
    Kernel("profl::activation.out", guarded<activation>),
    Kernel("profl::activation_backward.out", guarded<activation_backward>),
    Kernel("profl::add.out", guarded<add>),
    Kernel("profl::arithmetic.out", guarded<arithmetic>),
    Kernel("profl::affine.out", guarded<affine>),
    Kernel("profl::broadcast.out", guarded<broadcast>),
    Kernel("profl::sum_to.out", guarded<sum_to>),
    Kernel("profl::permute.out", guarded<permute>),
    Kernel("profl::cat.out", guarded<cat>),
    Kernel("profl::crop.out", guarded<crop>),
    Kernel("profl::max_pool2d.out", guarded<max_pool2d>),
    Kernel("profl::max_pool2d_backward.out", guarded<max_pool2d_backward>),
    Kernel("profl::average_pool2d.out", guarded<average_pool2d>),
    Kernel("profl::average_pool2d_backward.out", guarded<average_pool2d_backward>),
    Kernel("profl::global_average_pool.out", guarded<global_average_pool>),
    Kernel("profl::global_average_pool_backward.out", guarded<global_average_pool_backward>),
    Kernel("profl::resample2d.out", guarded<resample2d>),
    Kernel("profl::resample2d_backward.out", guarded<resample2d_backward>),
    Kernel("profl::linear.out", guarded<linear>),
    Kernel("profl::linear_input_grad.out", guarded<linear_input_grad>),
    Kernel("profl::linear_weight_grad.out", guarded<linear_weight_grad>),
    Kernel("profl::linear_weight_grad_sgd.out", guarded<linear_weight_grad_sgd>),
    Kernel("profl::channel_sum.out", guarded<channel_sum>),
    Kernel("profl::cross_entropy.out", guarded<cross_entropy>),
    Kernel("profl::mean_squared_error.out", guarded<mean_squared_error>),
    Kernel("profl::layer_norm.out", guarded<layer_norm>),
    Kernel("profl::layer_norm_apply.out", guarded<layer_norm_apply>),
    Kernel("profl::layer_norm_backward.out", guarded<layer_norm_backward>),
    Kernel("profl::gelu.out", guarded<gelu>),
    Kernel("profl::gelu_backward.out", guarded<gelu_backward>),
    Kernel("profl::softmax.out", guarded<softmax>),
    Kernel("profl::softmax_backward.out", guarded<softmax_backward>),
    Kernel("profl::attention.out", guarded<attention>),
    Kernel("profl::attention_backward.out", guarded<attention_backward>),
    Kernel("profl::matmul.out", guarded<matmul>),
    Kernel("profl::embedding.out", guarded<embedding>),
    Kernel("profl::embedding_weight_grad.out", guarded<embedding_weight_grad>),
    Kernel("profl::dropout.out", guarded<dropout>),
    Kernel("profl::strided_copy.out", guarded<strided_copy>),
    Kernel("profl::strided_copy_backward.out", guarded<strided_copy_backward>),
    Kernel("profl::adamw.out", guarded<adamw>),
    Kernel("profl::clip_factor.out", guarded<clip_factor>),
    Kernel("profl::scale_by.out", guarded<scale_by>),
    Kernel("profl::sgd.out", guarded<sgd>),
    Kernel("profl::fill.out", guarded<fill>),
    Kernel("profl::is_set.out", guarded<is_set>),
};

[[maybe_unused]] const auto kRegistered =
    ::executorch::runtime::register_kernels({kKernels, sizeof(kKernels) / sizeof(kKernels[0])});

}  // namespace
}  // namespace profl
