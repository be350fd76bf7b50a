"""Networks of other people's kinds, written with `torch.nn` alone: `tests.support.models:mobilenet_v2` for `--model`.

Each is small enough that a test trains every block of it; those of full size are beside them.
"""

from tests.support.models.branching import densenet, inception
from tests.support.models.mobile import efficientnet, efficientnet_full, mobilenet_v2, mobilenet_v2_full, mobilenet_v3
from tests.support.models.sequential import autoencoder, lenet, mlp, sensor_cnn
from tests.support.models.whole import deep_transformer, norm_head, wrapped

__all__ = [
    "autoencoder",
    "deep_transformer",
    "densenet",
    "efficientnet",
    "efficientnet_full",
    "inception",
    "lenet",
    "mlp",
    "mobilenet_v2",
    "mobilenet_v2_full",
    "mobilenet_v3",
    "norm_head",
    "sensor_cnn",
    "wrapped",
]
