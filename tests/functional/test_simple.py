import pytest
import torch
from torch import nn

from projunn_lightning import Projector, orthogonal
from projunn_lightning.functional.sampling import tangent
from projunn_lightning.functional.simple import step


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("shape", [(9, 9), (12, 7)], ids=str)
@pytest.mark.parametrize("feedback", [0.0, 0.7])
def test_the_simple_step_is_what_the_projector_does(shape, dtype, feedback, monkeypatch):
    n, p = shape
    model = orthogonal(nn.Linear(p, n, bias=False, dtype=dtype), init="haar")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Projector(model, rank=2, sampler="tangent", feedback=feedback).attach(optimizer)
    w, e = model.weight.detach().clone(), torch.zeros(n, p, dtype=dtype)
    for gradient in torch.randn(6, n, p, dtype=dtype):
        g = torch.randn(n, 2, dtype=dtype)
        monkeypatch.setattr(tangent, "gaussian", lambda *_, g=g: g[None])
        model.weight.grad = gradient.clone()
        optimizer.step()
        w, e = step(w, -0.1 * gradient, e, g, feedback)
        torch.testing.assert_close(model.weight.detach(), w, atol=1e-12, rtol=0)
