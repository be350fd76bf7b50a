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
    Kernel("profl::relu.out", relu),
    Kernel("profl::relu_backward.out", relu_backward),
    Kernel("profl::add.out", add),
    Kernel("profl::max_pool2d.out", max_pool2d),
    Kernel("profl::max_pool2d_backward.out", max_pool2d_backward),
    Kernel("profl::global_average_pool.out", global_average_pool),
    Kernel("profl::global_average_pool_backward.out", global_average_pool_backward),
    Kernel("profl::linear.out", linear),
    Kernel("profl::linear_input_grad.out", linear_input_grad),
    Kernel("profl::linear_weight_grad.out", linear_weight_grad),
    Kernel("profl::linear_weight_grad_sgd.out", linear_weight_grad_sgd),
    Kernel("profl::channel_sum.out", channel_sum),
    Kernel("profl::cross_entropy.out", cross_entropy),
    Kernel("profl::sgd.out", sgd),
    Kernel("profl::fill.out", fill),
};

[[maybe_unused]] const auto kRegistered =
    ::executorch::runtime::register_kernels({kKernels, sizeof(kKernels) / sizeof(kKernels[0])});

}  // namespace
}  // namespace profl
