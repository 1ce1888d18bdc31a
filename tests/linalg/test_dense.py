"""Products and changes of ordinary tensors: every way through them is the plain formula."""

import pytest
import torch

from projunn_lightning.linalg import Dense

SHAPES = [(701, 600), (3, 90_000), (90_000, 3), (100, 90), (64, 5000), (2, 600, 500)]


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("width", [0, 1, 3, 40])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
class TestThinFactors:
    def matrices(self, shape, dtype, width):
        (*batch, n, p), generator = shape, torch.Generator().manual_seed(0)
        width = min(width, n, p)
        sizes = [(n, p), (n, width), (p, width)]
        return [torch.randn(*batch, *size, dtype=dtype, generator=generator) for size in sizes]

    def test_products_are_the_plain_products(self, shape, dtype, width):
        w, left, right = self.matrices(shape, dtype, width)
        for each in (w, w.mT.contiguous().mT):  # both orders in memory
            torch.testing.assert_close(Dense(each).matmul(right), w @ right, rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(Dense(each).mH.matmul(left), w.mH @ left, rtol=1e-11, atol=1e-11)

    def test_a_change_is_the_plain_change(self, shape, dtype, width):
        w, left, right = self.matrices(shape, dtype, width)
        expected, before = w + left @ right.mH, w.clone()
        for each, out in ((w, torch.empty_like(w)), (w.mT.contiguous().mT, torch.empty_like(w)), (w, w)):
            Dense(each).add_product(left, right, out=Dense(out))
            torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-11)
            assert out is w or torch.equal(w, before)
