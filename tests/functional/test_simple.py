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
        w, _, e = step(w, -0.1 * gradient, c, e, torch.randn(n, 2, dtype=dtype), feedback)
        torch.testing.assert_close(model.weight.detach(), w, atol=1e-12, rtol=0)
        c = projector.state_dict()["weight"]["basis"].clone()  # it depends on the projector's own random numbers


def test_the_next_basis_of_the_simple_step_spans_a_sketch_of_omega():
    w, d, g = torch.linalg.qr(torch.randn(8, 8)).Q, torch.randn(8, 8), torch.randn(8, 2)
    c = torch.linalg.qr(torch.randn(8, 2)).Q
    _, new_c, _ = step(w, d, c, torch.zeros(8, 8), g)
    sketch = (d @ w.mT - w @ d.mT) @ g
    torch.testing.assert_close(new_c @ (new_c.mT @ sketch), sketch)
