"""The recurrence as one operator with its own backward pass.

A loop under autograd stores several tensors for each time step, and adds to the gradient of the weight T times. Here
the forward pass overwrites the projected inputs with the states, and the backward pass needs only the inputs and the
states. The backward pass goes back in chunks of time steps that fit into a cache. For each chunk it computes the
gradient of each weight by one product. On a CPU, both passes divide a large batch among several threads.
"""

from __future__ import annotations

from functools import partial, reduce

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from projunn_lightning.functional._differentiable import gradients
from projunn_lightning.functional._loop import written_out
from projunn_lightning.functional._memory import empty
from projunn_lightning.functional._threads import Steps, in_parts

CHUNK = 1 << 18
"""The number of entries in a chunk of time steps: 1 MB of float32, about the size of a core's cache."""

STEP, WHOLE, WEIGHT = 500_000, 600_000_000, 1 << 20
"""Limits of the rule by which the batch is divided among threads, see :func:`_divisions`. The last is in bytes."""


@torch.library.custom_op("projunn_lightning::scan", mutates_args=())
def scan(
    input: Tensor, state: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, nonlinearity: str
) -> Tensor:
    """:func:`~projunn_lightning.functional.recurrence` for tensors of one dtype. The bias of modReLU is real."""
    x = input.contiguous()
    states = empty(*x.shape[:2], len(weight_hh), like=x)
    flat, transposed = states.flatten(0, 1), weight_hh.mT
    if bias is None or nonlinearity == "modrelu":
        torch.mm(x.flatten(0, 1), weight_ih.mT, out=flat)
    else:
        torch.addmm(bias, x.flatten(0, 1), weight_ih.mT, out=flat)

    def run(part: slice, steps: Steps) -> None:
        before = state[part]
        scratch = torch.empty_like(before, dtype=states.dtype.to_real())
        for chunk in steps(states[:, part].split(_length(before))):
            for h in chunk.unbind(0):
                h.addmm_(before, transposed)
                _activate_(h, nonlinearity, bias, scratch)
                before = h

    in_parts(run, states.shape[1], _divisions(states))
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
    conjugate_ih, conjugate_hh = weight_ih.conj().resolve_conj(), weight_hh.conj().resolve_conj()
    grad_input = torch.empty_like(input, memory_format=torch.contiguous_format) if needs_input else input.new_empty(0)
    grad_state = states.new_zeros(states.shape[1:])

    def run(part: slice, steps: Steps) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of the weights and of the bias, summed over a part of the batch."""
        # The first two are the conjugates of the gradients until the end.
        grad_ih, grad_hh = (
            torch.zeros_like(weight, memory_format=torch.contiguous_format) for weight in (weight_ih, weight_hh)
        )
        grad_bias = states.new_empty(0) if bias is None else torch.zeros_like(bias)
        carry = grad_state[part]  # the gradient that later chunks pass to a chunk's last state
        length = max(1, min(_length(carry), len(states)))
        buffers = states.new_empty(3, length, *carry.shape)  # new memory for every chunk would take as long as the work
        for start in steps(reversed(range(0, len(states), length))):
            chunk = slice(start, start + length)
            x, h = input[chunk, part], states[chunk, part]
            previous, delta, other = buffers[:, : len(h)].unbind()
            previous[0] = states[start - 1, part] if start else state[part]
            previous[1:] = h[:-1]
            delta.copy_(grad[chunk, part])
            delta[-1] += carry
            inputs, befores = x.flatten(0, 1), previous.flatten(0, 1)
            if nonlinearity == "modrelu" and h.is_complex():
                assert bias is not None
                # z is computed again, because |h| - b is no accurate value of a small |z|.
                torch.mm(inputs, weight_ih.mT, out=other.flatten(0, 1)).addmm_(befores, weight_hh.mT)
                phase, factors = _complex_modrelu(other, bias)
                grad_z = _walk_back_(delta, conjugate_hh, factors, phase, out=other)
            else:
                grad_z = _walk_back_(delta, conjugate_hh, _derivative(h, nonlinearity, other))
                if nonlinearity == "modrelu":
                    delta = torch.sgn(h, out=other).mul_(delta)
            carry = grad_z[0] @ conjugate_hh
            grad_hh.addmm_(grad_z.flatten(0, 1).mH, befores)
            grad_ih.addmm_(grad_z.flatten(0, 1).mH, inputs)
            if needs_input:
                grad_input[chunk, part] = grad_z @ conjugate_ih
            if bias is not None:
                grad_bias += (delta if bias.is_complex() else delta.real).sum((0, 1))
        grad_state[part] = carry
        return grad_ih, grad_hh, grad_bias

    with torch.autocast(grad.device.type, enabled=False):
        grads = in_parts(run, states.shape[1], _divisions(states))
    # The order of the sum is fixed, so that its rounding is the same from run to run. It makes ordinary tensors of the
    # inference tensors of the parts.
    grad_ih, grad_hh, grad_bias = (reduce(torch.add, each) for each in zip(*grads, strict=True))
    return grad_input, grad_state, grad_ih.conj().resolve_conj(), grad_hh.conj().resolve_conj(), grad_bias


@scan_backward.register_fake
def _(grad, states, input, state, weight_ih, weight_hh, bias, nonlinearity, needs_input):  # type: ignore[no-untyped-def]
    return (
        input.new_empty(input.shape if needs_input else (0,)),
        state.new_empty(state.shape),
        weight_ih.new_empty(weight_ih.shape),
        weight_hh.new_empty(weight_hh.shape),
        states.new_empty(0) if bias is None else bias.new_empty(bias.shape),
    )


def _length(state: Tensor) -> int:
    """The number of time steps in a chunk."""
    return max(1, CHUNK // max(1, state.numel()))


def _divisions(states: Tensor) -> int:
    """The number of parts of the batch that are computed at the same time: the number of torch's threads, or 1.

    Several parts save the waiting of torch's threads for each other, which is long where other processes use the cores
    too. They pay under three conditions, for which ``benchmarks/NOTES.md`` has the figures. The products of a step take
    longer than its calls, because the threads take turns to hold Python's lock. The whole is long beside the few
    milliseconds for which torch's own threads keep their cores busy after their last work. The weight fits into the
    cache of a core.
    """
    (time, batch, size), threads = states.shape, torch.get_num_threads()
    step = batch // threads * size**2 * (4 if states.is_complex() else 1)  # multiplications in a step of a part
    pays = step >= STEP * threads and step * time >= WHOLE and size**2 * states.element_size() <= WEIGHT
    return threads if pays and states.device.type == "cpu" else 1


def _activate_(z: Tensor, nonlinearity: str, bias: Tensor | None, scratch: Tensor) -> None:
    if nonlinearity == "modrelu":
        assert bias is not None
        torch.abs(z, out=scratch)
        if z.is_complex():
            scale = torch.add(scratch, bias).relu_()
            z.mul_(scale.div_(scratch.clamp_min_(_tiny(scratch))))  # 0 for z = 0
        else:
            scratch.add_(bias).relu_()
            z.sgn_().mul_(scratch)
    elif nonlinearity == "relu":
        _reals(z).relu_()
    elif nonlinearity == "tanh":
        _reals(z).tanh_()


def _derivative(h: Tensor, nonlinearity: str, out: Tensor) -> tuple[Tensor, ...]:
    """The derivative of f where its values are h, as factors for :func:`_walk_back_`. For modReLU, h is real."""
    h, out = _reals(h), _reals(out)
    if nonlinearity == "relu":
        return (torch.gt(h, 0, out=out),)
    if nonlinearity == "tanh":
        return (torch.mul(h, h, out=out).neg_().add_(1),)
    return (torch.ne(h, 0, out=out),) if nonlinearity == "modrelu" else ()


def _complex_modrelu(z: Tensor, bias: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The derivative of complex modReLU at z, as a phase and factors for :func:`_walk_back_`.

    It keeps the radial part of a gradient and scales the part along the circle by ``s = (|z| + b) / |z|``. So the
    gradient is turned by the conjugate phase, which makes its real part the gradient of b. Its imaginary part is
    scaled, and the result is turned back. Where the forward pass clamps a tiny |z|, the derivative is taken as 0.
    """
    modulus = z.abs()
    value = (modulus + bias).relu_()
    on = (value > 0) & (modulus > _tiny(modulus))
    inverse = torch.where(on, modulus.reciprocal_(), 0)
    phase = z * inverse
    return phase, (phase.conj().resolve_conj(), torch.stack([on, value.mul_(inverse)], dim=-1))


def _tiny(x: Tensor) -> float:
    return float(torch.finfo(x.dtype).tiny ** 0.5)


def _walk_back_(
    delta: Tensor,
    conjugate: Tensor,
    factors: tuple[Tensor, ...],
    phase: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """The gradients of ``W_ih x + W_hh h`` in a chunk, from the gradients of its states.

    It goes from the last time step to the first. The factors of the derivative of f multiply a gradient in turn, in
    place. A real factor multiplies its real and imaginary parts. With a phase, the product with it is written to
    ``out``, and the gradients in ``delta`` stay in the frame of the phase.
    """
    grads = delta if out is None else out
    targets = [delta if factor.is_complex() else _reals(delta) for factor in factors]
    steps = [list(zip(x.unbind(), factor.unbind(), strict=True)) for x, factor in zip(targets, factors, strict=True)]
    after = None
    for t, (now, result) in reversed(list(enumerate(zip(delta.unbind(), grads.unbind(), strict=True)))):
        if after is not None:
            now.addmm_(after, conjugate)
        for step in steps:
            target, factor = step[t]
            target.mul_(factor)
        if phase is not None:
            torch.mul(now, phase[t], out=result)
        after = result
    return grads


def _reals(z: Tensor) -> Tensor:
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
