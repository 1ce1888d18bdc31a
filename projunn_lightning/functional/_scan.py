"""The recurrence as one operator with its own backward pass.

A loop under autograd stores several tensors for each time step, and adds to the gradient of the weight T times. Here
the forward pass overwrites the projected inputs with the states, and the backward pass needs only the inputs and the
states. The backward pass goes back in chunks of time steps that fit into a cache. For each chunk it computes the
gradient of each weight by one product.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from projunn_lightning.functional._differentiable import gradients
from projunn_lightning.functional._loop import written_out

CHUNK = 1 << 19
"""The number of entries in a chunk of the backward pass: 2 MB of float32, about the size of a core's cache."""


@torch.library.custom_op("projunn_lightning::scan", mutates_args=())
def scan(
    input: Tensor, state: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, nonlinearity: str
) -> Tensor:
    """:func:`~projunn_lightning.functional.recurrence` for tensors of one dtype. The bias of modReLU is real."""
    states = F.linear(input.contiguous(), weight_ih, None if nonlinearity == "modrelu" else bias)
    transposed = weight_hh.mT
    scratch = torch.empty_like(states[0].real)
    for h in states.unbind(0):
        h.addmm_(state, transposed)
        _activate_(h, nonlinearity, bias, scratch)
        state = h
    return states


@scan.register_fake
def _(input, state, weight_ih, weight_hh, bias, nonlinearity):  # type: ignore[no-untyped-def]
    return input.new_empty(*input.shape[:2], weight_hh.shape[0])


@torch.library.custom_op("projunn_lightning::scan_backward", mutates_args=())
def scan_backward(
    grad: Tensor,
    states: Tensor,
    input: Tensor,
    state: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None,
    nonlinearity: str,
    needs_input: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of input (if it needs one), state, weight_ih, weight_hh and bias (if there is one)."""
    dense = torch.contiguous_format
    length = max(1, CHUNK // max(1, states[0].numel()))
    conjugate = weight_hh.conj().resolve_conj()
    grad_input = torch.empty_like(input, memory_format=dense) if needs_input else input.new_empty(0)
    # These two are the conjugates of the gradients until the end.
    grad_ih, grad_hh = (torch.zeros_like(weight, memory_format=dense) for weight in (weight_ih, weight_hh))
    grad_bias = states.new_empty(0) if bias is None else torch.zeros_like(bias)
    carry = torch.zeros_like(states[0])  # the gradient that later chunks pass to a chunk's last state
    with torch.autocast(grad.device.type, enabled=False):
        for start in reversed(range(0, len(states), length)):
            chunk = slice(start, start + length)
            x, h = input[chunk], states[chunk]
            previous = torch.cat([(states[start - 1] if start else state)[None], h[:-1]])
            delta = grad[chunk].clone(memory_format=dense)
            delta[-1] += carry
            if nonlinearity == "modrelu" and h.is_complex():
                z = F.linear(x, weight_ih) + previous @ weight_hh.mT
                _walk_back_(delta, conjugate, *_complex_modrelu(z, h))
            else:
                _walk_back_(delta, conjugate, _derivative(h, nonlinearity))
            carry = delta[0] @ conjugate
            flat = delta.flatten(0, 1)
            grad_hh.addmm_(flat.mH, previous.flatten(0, 1))
            grad_ih.addmm_(flat.mH, x.flatten(0, 1))
            if needs_input:
                torch.mm(flat, weight_ih.conj(), out=grad_input[chunk].flatten(0, 1))
            if bias is not None:
                radial = (h.sgn().conj() * delta).real if nonlinearity == "modrelu" else delta
                grad_bias += radial.sum((0, 1))
    return grad_input, carry, grad_ih.conj().resolve_conj(), grad_hh.conj().resolve_conj(), grad_bias


@scan_backward.register_fake
def _(grad, states, input, state, weight_ih, weight_hh, bias, nonlinearity, needs_input):  # type: ignore[no-untyped-def]
    return (
        input.new_empty(input.shape if needs_input else (0,)),
        state.new_empty(state.shape),
        weight_ih.new_empty(weight_ih.shape),
        weight_hh.new_empty(weight_hh.shape),
        states.new_empty(0) if bias is None else bias.new_empty(bias.shape),
    )


def _activate_(z: Tensor, nonlinearity: str, bias: Tensor | None, scratch: Tensor) -> None:
    if nonlinearity == "modrelu":
        assert bias is not None
        torch.abs(z, out=scratch)
        if z.is_complex():
            scale = torch.add(scratch, bias).relu_()
            z.mul_(scale.div_(scratch.clamp_min_(torch.finfo(scratch.dtype).tiny ** 0.5)))  # 0 for z = 0
        else:
            scratch.add_(bias).relu_()
            z.sgn_().mul_(scratch)
    elif nonlinearity == "relu":
        _parts(z).relu_()
    elif nonlinearity == "tanh":
        _parts(z).tanh_()


def _derivative(h: Tensor, nonlinearity: str) -> Tensor | None:
    """The derivative of f where its values are h, for each real and imaginary part. For modReLU, h is real."""
    if nonlinearity == "relu":
        return (_parts(h) > 0).to(h.real.dtype)
    if nonlinearity == "tanh":
        return 1 - _parts(h).square()
    return h.sgn().square() if nonlinearity == "modrelu" else None


def _complex_modrelu(z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """The derivative of complex modReLU at z with values h, as a diagonal and the coupling of the two parts.

    The derivative keeps the radial part of a gradient and scales the part along the circle by ``s = |h| / |z|``. With
    the phase e as a vector of two entries it is the matrix ``s I + (1 - s) e e^T``. The caller computes z again,
    because ``|h| - b`` is no accurate value of a small ``|z|``.
    """
    modulus = z.abs()
    on = (modulus > 0) & (h != 0)
    s = torch.where(on, h.abs() / modulus, 0)
    e = torch.view_as_real(z.sgn())
    rest = torch.where(on, 1 - s, 0)
    return s[..., None] + rest[..., None] * e.square(), (rest * e[..., 0] * e[..., 1])[..., None]


def _walk_back_(delta: Tensor, conjugate: Tensor, diagonal: Tensor | None, coupling: Tensor | None = None) -> None:
    """Turn the gradients of a chunk's states into the gradients of ``W_ih x + W_hh h``.

    It goes from the last time step to the first and works in place.
    """
    after = None
    for t in reversed(range(len(delta))):
        now = delta[t]
        if after is not None:
            now.addmm_(after, conjugate)
        parts = _parts(now)
        if coupling is not None and diagonal is not None:
            crossed = parts.flip(-1)
            parts.mul_(diagonal[t]).addcmul_(coupling[t], crossed)
        elif diagonal is not None:
            parts.mul_(diagonal[t])
        after = now


def _parts(z: Tensor) -> Tensor:
    """The real numbers of a tensor: itself, or its real and imaginary parts in a last dimension of 2."""
    return torch.view_as_real(z) if z.is_complex() else z


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.nonlinearity = inputs
    ctx.save_for_backward(output, *tensors)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    if torch.is_grad_enabled():  # for a second derivative
        inputs = ctx.saved_tensors[1:]
        function = partial(written_out, nonlinearity=ctx.nonlinearity)
        return *gradients(function, inputs, ctx.needs_input_grad[:-1], grad), None
    grads = scan_backward(grad, *ctx.saved_tensors, ctx.nonlinearity, ctx.needs_input_grad[0])
    return *(g if needed else None for g, needed in zip(grads, ctx.needs_input_grad, strict=False)), None


scan.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.projunn_lightning.scan, get_raw=True)
def _flops(input, state, weight_ih, *rest, **_):  # type: ignore[no-untyped-def]
    """The number of floating-point operations of the products, as torch counts them."""
    size, features = weight_ih.shape
    return 2 * input.shape[:2].numel() * size * (features + size)


@register_flop_formula(torch.ops.projunn_lightning.scan_backward, get_raw=True)
def _backward_flops(grad, states, input, state, weight_ih, weight_hh, bias, nonlinearity, needs_input, **_):  # type: ignore[no-untyped-def]
    forward = _flops(input, state, weight_ih)
    again = nonlinearity == "modrelu" and states.is_complex()
    unneeded = 0 if needs_input else 2 * input.numel() * len(weight_ih)
    return (2 + again) * forward - unneeded
