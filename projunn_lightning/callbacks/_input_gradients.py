"""The norm of the loss's gradient at each time step of a recurrent layer, which shows vanishing gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from projunn_lightning.nn import ElmanRNN


def recurrent_layers(module: nn.Module) -> Iterator[tuple[str, nn.RNNBase | ElmanRNN]]:
    """The recurrent layers of a module by name: the layers of torch and the layers of this package."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.RNNBase | ElmanRNN):
            yield name, layer


class InputGradients:
    """The norms of the loss's gradient with respect to the input of each recurrent layer.

    The gradient is measured at the input, because fused layers do not expose their states. At each time step it is the
    gradient at the pre-activations of the first layer (of the gates, in an LSTM or a GRU), multiplied by the transpose
    of the input matrix. The calls of the layers between :meth:`watch` and :meth:`stop` are measured, except calls with
    a packed sequence or without gradients. If a layer is called several times, the gradient that the backward pass
    reaches last counts, which is usually that of the first call.

    Attributes:
        norms: the norm over the batch and the features at each time step, ``(T,)``, by the name of the layer.
    """

    def __init__(self) -> None:
        self.norms: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def watch(self, module: nn.Module) -> None:
        self.norms = {}
        for name, layer in recurrent_layers(module):
            self._handles.append(layer.register_forward_pre_hook(self._hook(name)))

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, name: str) -> Any:
        def before(layer: nn.RNNBase | ElmanRNN, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
            input = inputs[0]
            if not isinstance(input, Tensor) or not torch.is_grad_enabled():  # packed sequences are not tensors
                return None
            if not input.requires_grad:
                input = input.detach().requires_grad_()
            time = 0 if input.ndim == 2 or not layer.batch_first else 1

            def keep(gradient: Tensor) -> None:
                others = [dim for dim in range(gradient.ndim) if dim != time]
                self.norms[name] = torch.linalg.vector_norm(gradient, dim=others)

            input.register_hook(keep)
            return (input, *inputs[1:])

        return before
