import torch
from torch import nn

from projunn_lightning.nn import MappedRNN


class Counted(nn.Module):
    """A random orthogonal matrix that counts how often it is computed."""

    def __init__(self, size, dtype, device):
        super().__init__()
        self.calls = 0
        self.matrix = nn.Parameter(nn.init.orthogonal_(torch.empty(size, size, dtype=dtype, device=device)))

    def forward(self):
        self.calls += 1
        return self.matrix


def test_makes_a_map_for_each_layer_and_computes_it_once_a_pass():
    rnn = MappedRNN(Counted, 3, 5, 2, dtype=torch.float64)
    rnn(torch.randn(4, 50, 3))
    assert [module.calls for module in rnn.maps] == [1, 1]
    assert [module.matrix.dtype for module in rnn.maps] == [torch.float64] * 2
    assert rnn.maps[0].matrix.shape == (5, 5)
    assert not torch.equal(rnn.recurrent_weight(0), rnn.recurrent_weight(1))


def test_reset_keeps_the_parameters_and_draws_new_values():
    rnn = MappedRNN(Counted, 3, 5)
    matrix, before = rnn.maps[0].matrix, rnn.recurrent_weight(0).detach().clone()
    rnn.reset_recurrent_parameters()
    assert rnn.maps[0].matrix is matrix
    assert not torch.equal(matrix, before)
