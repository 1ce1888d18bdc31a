"""Local convolutions of all kinds, their matrices, and a short training of them."""

import pytest
import torch
from torch import nn

from projunn_lightning import Projector

SIZE = (8, 6)  # of images that suit each of the kinds
KINDS = {  # the arguments of OrthogonalConv2d
    "square": ((3, 3, 3), {}),
    "more channels": ((2, 5, 3), {}),
    "fewer channels": ((5, 2, (5, 2)), {}),
    "1 x 1": ((3, 4, 1), {}),
    "even": ((3, 2, (2, 4)), {"bias": False}),
    "stride, as many outputs as inputs": ((2, 8, 4), {"stride": 2}),
    "stride, odd": ((2, 9, 3), {"stride": 2}),
    "stride, fewer outputs": ((3, 5, (5, 3)), {"stride": 2}),
    "as large as its stride": ((2, 8, 2), {"stride": 2, "bias": False}),
    "stride of the columns only": ((3, 6, 4), {"stride": (1, 2)}),
    "stride of the rows only": ((3, 6, (5, 2)), {"stride": (4, 1)}),
    "groups": ((4, 6, 3), {"groups": 2}),
    "groups, stride": ((4, 8, 4), {"groups": 2, "stride": 2}),
    "depthwise": ((3, 3, 3), {"groups": 3}),
    "depthwise, more channels": ((3, 6, 3), {"groups": 3}),
}


def made(layer_class, kind, **options):
    """A layer of a kind with a random bias; a transposed one has the channels of its kind exchanged."""
    (inputs, outputs, size), others = KINDS[kind]
    channels = (outputs, inputs) if layer_class.transposed else (inputs, outputs)
    layer = layer_class(*channels, size, **others, **options)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer


def input_size(layer, size=SIZE):
    """The size of the input of a layer whose large images have a size."""
    return tuple(n // step for n, step in zip(size, layer.stride, strict=True)) if layer.transposed else size


def images(layer, count=2, size=SIZE):
    return torch.randn(count, layer.in_channels, *input_size(layer, size), dtype=layer.weight.dtype)


def operator(layer, size=SIZE):
    """The layer as a matrix, computed from the image of every unit vector."""
    shape = (layer.in_channels, *input_size(layer, size))
    inputs = torch.Size(shape).numel()
    units = torch.eye(inputs, dtype=layer.weight.dtype).view(inputs, *shape)
    zero = layer(torch.zeros_like(units[:1]))
    return (layer(units) - zero).flatten(1).mT.detach()


def train(layer, steps=200, size=SIZE, **options):
    """Train a layer to turn random images into others, which no layer can."""
    optimizer = torch.optim.RMSprop(layer.parameters(), lr=1e-2)
    Projector(layer, **options).attach(optimizer)
    for _ in range(steps):
        output = layer(images(layer, 4, size))
        target = torch.linspace(-1, 1, output[0].numel()).view_as(output[0])
        optimizer.zero_grad()
        (output - target).abs().square().mean().backward()
        optimizer.step()


smaller_than_the_kernel = pytest.mark.parametrize(
    ("kernel_size", "stride", "size"),
    [
        (5, 1, (2, 2)),
        (3, 1, (1, 1)),
        (2, 1, (1, 1)),
        (4, 1, (2, 3)),
        (5, 2, (2, 2)),
        (4, 2, (2, 4)),
        (5, 3, (3, 3)),
    ],
    ids=str,
)
"""Images that the padding of a kernel continues by as much as their sides, or nearly so."""
