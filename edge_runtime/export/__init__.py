"""Host side: capture a model, cut it into blocks, build each block's training step and write a bundle."""

import logging

# torchao, which executorch imports and this package never calls, reports on import that its GPU kernels do not load.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
