"""The recurrence and the circular convolution in the form that an exported program contains.

``torch.export`` supports neither the operators of this package nor a loop of variable length, and ONNX has no complex
numbers. In this file a complex tensor is therefore a pair of real tensors, a Fourier transform is a product with a
matrix of waves, and a recurrence is torch's ``scan``, which ONNX has too. These functions have no backward pass.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[Tensor, Tensor]


def view_as_pair(z: Tensor) -> Pair:
    """The real and the imaginary part of a tensor."""
    if z.is_complex():
        real, imag = torch.view_as_real(z).unbind(-1)
        return real, imag
    return z, torch.zeros_like(z)


def view_as_complex(z: Pair) -> Tensor:
    """The complex tensor with the given real and imaginary parts."""
    return torch.view_as_complex(torch.stack(z, dim=-1))


def matmul(a: Pair, b: Pair) -> Pair:
    """The product of two complex matrices."""
    return a[0] @ b[0] - a[1] @ b[1], a[0] @ b[1] + a[1] @ b[0]


def recurrence(
    input: Tensor, state: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, nonlinearity: str
) -> Tensor:
    """The same as :func:`~projunn_lightning.functional.recurrence`, with operators that can be exported."""
    drive: Tensor
    if weight_hh.is_complex():
        real, imag = matmul(view_as_pair(input), view_as_pair(weight_ih.mT))
        if bias is not None and nonlinearity != "modrelu":
            real, imag = real + view_as_pair(bias)[0], imag + view_as_pair(bias)[1]
        # A state is [real | imaginary], and (a + bi)(c + di) is the product of [a | b] and [[c, d], [-d, c]].
        drive, state = torch.cat([real, imag], -1), torch.cat(view_as_pair(state), -1)
        c, d = view_as_pair(weight_hh.mT)
        weight = torch.cat([torch.cat([c, d], -1), torch.cat([-d, c], -1)])
    else:
        drive, weight = F.linear(input, weight_ih, None if nonlinearity == "modrelu" else bias), weight_hh.mT
    threshold = bias if nonlinearity == "modrelu" and bias is not None else drive.new_zeros(1)
    steps = {"modrelu": _complex_modrelu if weight_hh.is_complex() else _modrelu, "relu": _relu, "tanh": _tanh}
    step = steps.get(nonlinearity, _identity)
    # torch's public function compiles the step first, which would fix the size of the batch.
    _, states = torch.ops.higher_order.scan(step, [state], [drive], (weight, threshold))
    return view_as_complex(states.chunk(2, -1)) if weight_hh.is_complex() else states


def _next(h: Tensor) -> list[Tensor]:
    return [h, h.clone()]  # the next state and the output; scan refuses one tensor for both


def _modrelu(h: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    z = torch.addmm(x, h, weight)
    return _next(z.sign() * (z.abs() + bias).relu())


def _complex_modrelu(h: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    real, imag = torch.addmm(x, h, weight).chunk(2, -1)
    modulus = (real.square() + imag.square()).sqrt()
    scale = (modulus + bias).relu() / modulus.clamp_min(torch.finfo(modulus.dtype).tiny ** 0.5)  # 0 for z = 0
    return _next(torch.cat([scale * real, scale * imag], -1))


def _relu(h: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    return _next(torch.addmm(x, h, weight).relu())


def _tanh(h: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    return _next(torch.addmm(x, h, weight).tanh())


def _identity(h: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    return _next(torch.addmm(x, h, weight))


def convolve(images: Tensor, spectrum: Pair, *, real: bool) -> Tensor:
    """Convolve images ``(B, I, H, W)`` to ``(B, O, H, W)`` by one matrix for each frequency, ``(H, K, O, I)``.

    K is W. For a real output K is ``W // 2 + 1``, because half of the spectrum determines the other half.
    """
    height, width = images.shape[-2:]
    kept = spectrum[0].shape[1]
    a, b = view_as_pair(images)
    rows, columns = _waves(height, height, height, a), _waves(width, kept, width, a)
    a, b = matmul(matmul(rows, (a, b)), columns)
    a, b = matmul((a.permute(2, 3, 0, 1), b.permute(2, 3, 0, 1)), (spectrum[0].mT, spectrum[1].mT))
    a, b = matmul((rows[0], -rows[1]), (a.permute(2, 3, 0, 1), b.permute(2, 3, 0, 1)))
    cos, sin = columns[0].mT / (height * width), -columns[1].mT / (height * width)
    if not real:
        return view_as_complex(matmul((a, b), (cos, sin)))
    column = torch.arange(kept, device=cos.device)[:, None]
    share = 1 + (2 * column % width != 0).to(cos.dtype)  # columns whose mirror image is left out count twice
    return a @ (share * cos) - b @ (share * sin)


def _waves(rows: int, columns: int, size: int, like: Tensor) -> Pair:
    """The real and the imaginary part of the Fourier matrix ``exp(-2 pi i j k / size)``, j < ``rows``, k < ``columns``.

    Their dtype and device are those of ``like``.
    """
    j, k = (torch.arange(n, device=like.device) for n in (rows, columns))
    angle = (j[:, None] * k % size).to(torch.float64) * (2 * math.pi / size)
    return angle.cos().to(like.dtype), -angle.sin().to(like.dtype)
