"""Looking at a trained network without leaving a trace in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(network: nn.Module, device_type: str) -> Iterator[None]:
    """Run the body in eval mode, in float32 and with gradients, whatever the caller runs in.

    Afterwards, also after an exception, every module is in the mode that it was in before, one by one: a network that
    is partly frozen stays so. The body takes its gradients with `torch.autograd.grad`, which leaves none in the
    parameters.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        # autocast would round the gradients; under inference mode, which Lightning predicts in, there are none
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device_type, enabled=False):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
