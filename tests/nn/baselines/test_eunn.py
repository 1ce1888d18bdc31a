import pytest
import torch

from projunn_lightning.functional import init, unitarity_error
from projunn_lightning.nn.baselines.eunn import GivensLayers

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)


def rotation(size, first, second, theta, phi):
    matrix = torch.eye(size, dtype=torch.complex128)
    phase = torch.polar(torch.ones(()).double(), phi)
    matrix[first, first], matrix[first, second] = phase * theta.cos(), -phase * theta.sin()
    matrix[second, first], matrix[second, second] = theta.sin() + 0j, theta.cos() + 0j
    return matrix


def written_out(layers, pairs):
    """The product of the phases and of all rotations."""
    omega = torch.zeros(layers.size).double() if layers.omega is None else layers.omega
    product = torch.polar(torch.ones_like(omega), omega).diag()
    phis = torch.zeros_like(layers.theta) if layers.phi is None else layers.phi
    for pair, theta, phi in zip(pairs, layers.theta, phis, strict=True):
        product = rotation(layers.size, *pair, theta, phi) @ product
    return product


@DTYPES
@pytest.mark.parametrize("size", [4, 5])
def test_the_tunable_form_pairs_neighbours_in_turn(dtype, size):
    layers = GivensLayers.tunable(size, capacity=3, dtype=dtype)
    even, odd = [[(i, i + 1) for i in range(start, size - 1, 2)] for start in (0, 1)]
    assert len(layers.theta) == len(2 * even + odd)
    torch.testing.assert_close(layers() + 0j, written_out(layers, even + odd + even))


@DTYPES
def test_the_fft_form_pairs_at_halving_distances(dtype):
    layers = GivensLayers.fft(8, dtype=dtype)
    pairs = [(0, 4), (1, 5), (2, 6), (3, 7), (0, 2), (1, 3), (4, 6), (5, 7), (0, 1), (2, 3), (4, 5), (6, 7)]
    torch.testing.assert_close(layers() + 0j, written_out(layers, pairs))


@pytest.mark.parametrize("size", [2, 5, 8])
def test_full_capacity_has_as_many_parameters_as_the_unitary_group_and_reaches_all_of_it(size):
    layers = GivensLayers.tunable(size, dtype=torch.complex128)
    assert sum(p.numel() for p in layers.parameters()) == size**2  # Jing et al. 2017, section 3.1
    names, values = zip(*((name, p.detach()) for name, p in layers.named_parameters()), strict=True)

    def matrix(*parameters):
        return torch.view_as_real(torch.func.functional_call(layers, dict(zip(names, parameters, strict=True)), ()))

    jacobian = torch.autograd.functional.jacobian(matrix, values)
    directions = torch.cat([j.reshape(-1, j.shape[-1]) for j in jacobian], dim=1)
    assert torch.linalg.matrix_rank(directions) == size**2


@pytest.mark.parametrize("size", [4, 8, 16])
def test_the_fft_form_has_n_log_n_plus_n_parameters(size):
    layers = GivensLayers.fft(size)
    assert sum(p.numel() for p in layers.parameters()) == size * (size.bit_length() - 1) + size


def test_learns_a_random_unitary_matrix_of_size_8():
    target = init.haar_(torch.empty(8, 8, dtype=torch.complex128))
    layers = GivensLayers.tunable(8, dtype=torch.complex128)
    optimizer = torch.optim.LBFGS(layers.parameters(), max_iter=2000, line_search_fn="strong_wolfe", tolerance_change=0)

    def distance():
        optimizer.zero_grad()
        loss = (layers() - target).abs().square().sum()
        loss.backward()
        return loss

    optimizer.step(distance)
    assert distance() < 1e-8
    assert unitarity_error(layers()) < 1e-14


def test_refuses_sizes_and_capacities_that_cannot_work():
    with pytest.raises(ValueError, match="power of 2, found 6"):
        GivensLayers.fft(6)
    with pytest.raises(ValueError, match="hidden_size must be 2 or more, found 1"):
        GivensLayers.tunable(1)
    with pytest.raises(ValueError, match="capacity must be 1 or more, found 0"):
        GivensLayers.tunable(8, 0)
