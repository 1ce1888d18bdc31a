import pytest
import torch

from projunn_lightning.nn.baselines.ornn import Householder


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("reflections", [None, 1, 3])
def test_is_the_product_of_its_reflections(dtype, reflections):
    matrix = Householder(5, reflections, dtype=dtype)
    m = reflections or 5
    vectors = torch.zeros(5, m, dtype=dtype)
    vectors[tuple(torch.tril_indices(5, m))] = matrix.entries.detach()
    product = torch.eye(5, dtype=dtype)
    for k, u in enumerate(vectors.unbind(1)):
        assert not u[:k].any()
        product = product @ (torch.eye(5, dtype=dtype) - 2 * torch.outer(u, u.conj()) / u.norm() ** 2)
    torch.testing.assert_close(matrix(), product)


@pytest.mark.parametrize(("size", "reflections"), [(5, 1), (8, 3), (8, 8)])
def test_has_the_published_number_of_parameters(size, reflections):
    count = Householder(size, reflections).entries.numel()
    assert count == reflections * (2 * size - reflections + 1) // 2  # Mhammedi et al. 2017


def test_stays_orthogonal_when_a_vector_grows():
    matrix = Householder(20, 6, dtype=torch.float32)
    with torch.no_grad():
        matrix.entries *= torch.logspace(-3, 3, len(matrix.entries))
    torch.testing.assert_close(matrix().mT @ matrix(), torch.eye(20), atol=1e-5, rtol=0)


@pytest.mark.parametrize("reflections", [0, 6])
def test_refuses_reflections_beyond_the_size(reflections):
    with pytest.raises(ValueError, match=f"reflections must be from 1 to hidden_size = 5, found {reflections}"):
        Householder(5, reflections)
