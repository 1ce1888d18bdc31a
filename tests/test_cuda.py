"""What only a CUDA GPU can show; skipped elsewhere."""

import itertools

import pytest
import torch
from torch import nn

from projunn_lightning import Projector, orthogonal
from projunn_lightning.functional import RETRACTIONS, SAMPLERS, unitarity_error
from projunn_lightning.nn import FourierConv2d, OrthogonalConv2d, UnitaryRNN

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def steps(projected, device, count=3):
    generator = torch.Generator().manual_seed(0)
    model = nn.ModuleList(orthogonal(nn.Linear(24, 24, bias=False), init="identity") for _ in range(2)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Projector(model, **projected).attach(optimizer)
    for _ in range(count):
        for parameter in model.parameters():
            parameter.grad = torch.randn(24, 24, generator=generator).to(device)
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize(("retraction", "rank"), list(itertools.product(RETRACTIONS, [1, 4])))
def test_updates_as_the_cpu_does(retraction, rank):
    options = {"retraction": retraction, "rank": rank, "sampler": "svd"}  # the one sampler without random numbers
    for here, there in zip(steps(options, "cpu"), steps(options, "cuda"), strict=True):
        torch.testing.assert_close(there.cpu(), here, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("retraction", "rank"), list(itertools.product(RETRACTIONS, [1, 4])))
@pytest.mark.parametrize("sampler", [name for name, sampler in SAMPLERS.items() if not sampler.needs_whole])
def test_an_update_does_not_wait_for_the_device(retraction, rank, sampler):
    sizes = (256, 256, 256, 1024)  # three in a batch, and one alone
    model = nn.ModuleList(orthogonal(nn.Linear(size, size, bias=False, device="cuda")) for size in sizes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Projector(model, retraction=retraction, rank=rank, sampler=sampler).attach(optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()  # the counter moves to the device, libraries set themselves up
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(unitarity_error(parameter) < 1e-5 for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("layer", ["rnn", "convolution"])
def test_layers_compute_what_the_cpu_does_with_the_same_gradients(layer, dtype):
    torch.manual_seed(0)
    module = UnitaryRNN(3, 8, 2, dtype=dtype) if layer == "rnn" else FourierConv2d(3, 4, (5, 6), dtype=dtype)
    input = torch.randn((2, 7, 3) if layer == "rnn" else (2, 3, 5, 6), dtype=dtype)
    results = []
    for device in ("cpu", "cuda"):
        module.to(device).zero_grad()
        output = module(input.to(device))
        output = output[0] if layer == "rnn" else output
        output.abs().square().sum().backward()
        results.append([output.cpu(), *(parameter.grad.cpu().clone() for parameter in module.parameters())])
    torch.testing.assert_close(*results)


@torch.no_grad()
def test_the_kept_kernel_of_a_convolution_is_assembled_anew_for_parameters_on_another_device():
    layer, x = OrthogonalConv2d(2, 3, 3).eval(), torch.randn(1, 2, 4, 4)
    expected = layer(x)
    layer.load_state_dict({name: value.cuda() for name, value in layer.state_dict().items()}, assign=True)
    torch.testing.assert_close(layer(x.cuda()).cpu(), expected)
