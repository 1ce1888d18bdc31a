"""The norm of the loss's gradient at each time step of a recurrent layer, which shows vanishing gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from projunn_lightning._compat import has_hooks_on_inputs, in_torch_func
from projunn_lightning.callbacks._harmless import harmless
from projunn_lightning.nn import ElmanRNN

RecurrentLayer = nn.RNNBase | ElmanRNN
"""The recurrent layers of torch and the recurrent layers of this package."""


def recurrent_layers(module: nn.Module) -> Iterator[tuple[str, RecurrentLayer]]:
    """The recurrent layers of a module by name."""
    for name, layer in module.named_modules():
        if isinstance(layer, RecurrentLayer):
            yield name, layer


class InputGradients:
    """The norms of the loss's gradient with respect to the input of each recurrent layer.

    The gradient is measured at the input, because fused layers do not expose their states. At each time step it is the
    gradient at the pre-activations of the first layer (of the gates, in an LSTM or a GRU), multiplied by the transpose
    of the input matrix. The calls of the layers between :meth:`watch` and :meth:`stop` are measured, except calls with
    a packed sequence, without gradients, in compiled code or in a transform of ``torch.func``. If a layer is called
    several times, the gradient that the backward pass reaches last counts, which is usually that of the first call.

    An input that requires no gradient is replaced by an alias that does, but only where nobody can notice it: in a
    layer that is trained, whose forward pass is the one of torch or of this package, and whose inputs no other hook
    sees. All other inputs stay as they are, and are measured if they require a gradient.

    Attributes:
        norms: the norm over the batch and the features at each time step, ``(T,)``, by the name of the layer.
    """

    def __init__(self) -> None:
        self.norms: dict[str, Tensor] = {}
        self._watching = False
        self._handles: list[RemovableHandle] = []

    def watch(self, module: nn.Module) -> None:
        self.norms = {}
        self._watching = True
        for name, layer in recurrent_layers(module):
            self._handles.append(layer.register_forward_pre_hook(self._hook(name), with_kwargs=True))

    def stop(self) -> None:
        self._watching = False
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, name: str) -> Any:
        def before(layer: RecurrentLayer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if torch.compiler.is_compiling() or not self._watching:  # a copy of the layer keeps the hook
                return None
            with harmless(f"the gradient at the input of {name}"):
                input = args[0] if args else kwargs.get("input")
                if not _is_sequence(input) or not torch.is_grad_enabled() or in_torch_func():
                    return None
                if input.requires_grad:
                    self._measure(name, layer, input)
                elif type(input) is Tensor and not input.is_inference() and _can_alias(layer):
                    alias = input.detach().requires_grad_()
                    self._measure(name, layer, alias)
                    return ((alias, *args[1:]), kwargs) if args else (args, kwargs | {"input": alias})
            return None

        return before

    def _measure(self, name: str, layer: RecurrentLayer, input: Tensor) -> None:
        time = 0 if input.ndim == 2 or not layer.batch_first else 1
        others = [dim for dim in range(input.ndim) if dim != time]

        @torch.no_grad()
        def keep(gradient: Tensor) -> None:
            with harmless(f"the gradient at the input of {name}"):
                wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
                self.norms[name] = torch.linalg.vector_norm(wide, dim=others)

        self._handles.append(input.register_hook(keep))


def _is_sequence(input: object) -> TypeGuard[Tensor]:
    """Whether an input is ``(B, T, I)``, ``(T, B, I)`` or ``(T, I)`` with a gradient. Packed sequences are not."""
    return (
        isinstance(input, Tensor)
        and not input.is_nested
        and input.ndim in (2, 3)
        and (input.is_floating_point() or input.is_complex())
    )


def _can_alias(layer: RecurrentLayer) -> bool:
    """Whether an input that requires a gradient changes nothing outside of the forward pass of the layer."""
    known = layer.forward.__module__.startswith(("torch.nn.", "projunn_lightning.nn."))
    trained = any(parameter.requires_grad for parameter in layer.parameters())
    return known and trained and not has_hooks_on_inputs(layer)
