import pytest
import torch

from projunn_lightning.functional import init, unitarity_error
from projunn_lightning.nn.baselines.exprnn import SkewMap

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)


def skew_of(module):
    lower = module.matrix.parametrizations.weight.original.detach().tril()
    return lower - lower.mH


def transform(function, skew):
    eye = torch.eye(len(skew), dtype=skew.dtype)
    return torch.matrix_exp(skew) if function == "matrix_exp" else torch.linalg.inv(eye - skew / 2) @ (eye + skew / 2)


@DTYPES
@pytest.mark.parametrize("function", ["matrix_exp", "cayley"])
@pytest.mark.parametrize("base", ["identity", "signs", "moving"])
def test_is_the_base_times_a_function_of_a_skew_matrix(dtype, function, base):
    module = SkewMap(6, function, base, dtype=dtype).eval()
    start = module().detach()
    torch.nn.init.normal_(module.matrix.parametrizations.weight.original, std=0.5)
    factor = {
        "identity": torch.eye(6, dtype=dtype),
        "signs": torch.tensor([-1, -1, -1, 1, 1, 1]).diag().to(dtype),
        "moving": start,
    }[base]
    torch.testing.assert_close(module(), factor @ transform(function, skew_of(module)))


@DTYPES
@pytest.mark.parametrize("function", ["matrix_exp", "cayley"])
@pytest.mark.parametrize("name", ["henaff", "cayley", "identity"])
@pytest.mark.parametrize("base", ["identity", "moving"])
def test_starts_where_its_init_says(dtype, function, name, base):
    torch.manual_seed(3)
    module = SkewMap(7, function, base, init=name, dtype=dtype)
    torch.manual_seed(3)
    torch.testing.assert_close(module().detach(), getattr(init, f"{name}_")(torch.empty(7, 7, dtype=dtype)))


@DTYPES
@pytest.mark.parametrize("base", ["identity", "signs", "moving"])
def test_has_as_many_directions_as_the_group(dtype, base):
    """N (N - 1) / 2 real directions, or N^2 complex ones: the numbers of parameters published for expRNN and scoRNN."""
    module = SkewMap(6, "matrix_exp", base, dtype=dtype)
    original = module.matrix.parametrizations.weight.original.detach()
    name = "matrix.parametrizations.weight.original"
    module.eval()

    def matrix(entries):
        entries = torch.view_as_complex(entries) if dtype.is_complex else entries
        result = torch.func.functional_call(module, {name: entries}, ())
        return torch.view_as_real(result) if dtype.is_complex else result

    inputs = torch.view_as_real(original) if dtype.is_complex else original
    jacobian = torch.autograd.functional.jacobian(matrix, inputs)
    assert torch.linalg.matrix_rank(jacobian.reshape(jacobian.shape[: matrix(inputs).ndim].numel(), -1)) == (
        36 if dtype.is_complex else 15
    )


class TestMovingBase:
    def test_moves_after_every_period_and_keeps_the_matrix(self):
        module = SkewMap(6, "matrix_exp", "moving", period=3, dtype=torch.float64)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        target = torch.randn(6, 6).double()
        for step in range(7):
            expected = module.eval()().detach()
            module.train()
            torch.testing.assert_close(module(), expected)
            assert (skew_of(module).norm() < 1e-15) == (step % 3 == 0)
            optimizer.zero_grad()
            (target @ module.eval()()).sum().backward()
            optimizer.step()
        assert unitarity_error(module()) < 1e-14

    def test_does_not_move_in_evaluation(self):
        module = SkewMap(6, "matrix_exp", "moving").eval()
        module()
        with torch.no_grad():
            module.train()()
        assert module.passes == 0

    def test_with_cayley_and_period_1_a_step_is_a_riemannian_gradient_step(self):
        """The step is ``W (I + s A)^(-1) (I - s A)``, where A is the skew part of W^T G (Wisdom et al. 2016)."""
        module = SkewMap(5, "cayley", "moving", init="haar", dtype=torch.float64)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.2)
        target = torch.randn(5, 5).double()
        for _ in range(3):
            w = module.eval()().detach()
            optimizer.zero_grad()
            (module.train()() * target).sum().backward()
            optimizer.step()
            pulled = w.mT @ target
            direction = -0.2 * (pulled - pulled.mT)
            direction = direction.tril(-1) - direction.tril(-1).mT
            torch.testing.assert_close(module.eval()().detach(), w @ transform("cayley", direction))

    def test_is_saved_in_the_state_dict(self):
        module = SkewMap(6, "matrix_exp", "moving", period=1)
        for _ in range(2):
            torch.nn.init.normal_(module.matrix.parametrizations.weight.original, std=0.1)
            module()
        twin = SkewMap(6, "matrix_exp", "moving", period=1)
        twin.load_state_dict(module.state_dict())
        assert torch.equal(twin.eval()(), module.eval()())
        assert twin.passes == module.passes == 2


def test_refuses_periods_that_are_no_counts_and_inits_that_are_no_function_of_a_skew_matrix():
    with pytest.raises(ValueError, match="period must be 1 or more, found 0"):
        SkewMap(4, "matrix_exp", "moving", period=0)
    with pytest.raises(TypeError, match="'float' object cannot be interpreted as an integer"):
        SkewMap(4, "matrix_exp", "moving", period=2.5)
    with pytest.raises(ValueError, match="starts from henaff, cayley or identity, found init 'haar'"):
        SkewMap(4, "matrix_exp", "identity", init="haar")
