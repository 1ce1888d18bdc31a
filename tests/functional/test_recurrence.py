import torch

from projunn_lightning.functional import recurrence


def test_is_the_recurrence_written_out():
    drive, state, weight = torch.randn(3, 2, 4), torch.randn(2, 4), torch.randn(4, 4)
    expected = []
    for x in drive:
        state_before = expected[-1] if expected else state
        expected.append(torch.tanh(x + torch.einsum("ij,bj->bi", weight, state_before)))
    torch.testing.assert_close(recurrence(drive, state, weight, torch.tanh), torch.stack(expected))


def test_gradcheck_real_and_complex():
    for dtype in (torch.float64, torch.complex128):
        shapes = ((3, 2, 4), (2, 4), (4, 4))
        inputs = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
        assert torch.autograd.gradcheck(lambda x, h, w: recurrence(x, h, w, torch.sin), inputs)
