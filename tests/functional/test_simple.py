import pytest
import torch
from torch import nn

from projunn_lightning import Projector, orthogonal
from projunn_lightning.functional.simple import step


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("shape", [(9, 9), (12, 7)], ids=str)
@pytest.mark.parametrize("feedback", [0.0, 0.7])
def test_the_simple_step_is_what_the_projector_does(shape, dtype, feedback):
    n, p = shape
    model = orthogonal(nn.Linear(p, n, bias=False, dtype=dtype), init="haar")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = Projector(model, rank=2, sampler="tangent", feedback=feedback).attach(optimizer)
    gradients = torch.randn(6, n, p, dtype=dtype)
    model.weight.grad = gradients[0].clone()
    optimizer.step()  # the first basis is random
    w, c = model.weight.detach().clone(), projector.state_dict()["weight"]["basis"].clone()
    residual = projector.state_dict()["weight"]["residual"]
    e = torch.zeros(n, p, dtype=dtype) if residual is None else residual.clone()
    for gradient in gradients[1:]:
        model.weight.grad = gradient.clone()
        optimizer.step()
        w, c, e = step(w, -0.1 * gradient, c, e, feedback)
        torch.testing.assert_close(model.weight.detach(), w, atol=1e-12, rtol=0)
