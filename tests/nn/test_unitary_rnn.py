import copy
import pickle

import pytest
import torch

from projunn_lightning import Projector
from projunn_lightning.functional import unitarity_error
from projunn_lightning.nn import UnitaryRNN


@pytest.mark.parametrize("nonlinearity", ["modrelu", "relu", "tanh", "identity"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("init", ["haar", "henaff", "cayley", "identity"])
def test_the_recurrent_weights_are_unitary_at_the_start_and_stay_so(nonlinearity, dtype, init):
    rnn = UnitaryRNN(3, 6, 2, nonlinearity=nonlinearity, dtype=dtype, init=init)
    weights = [rnn.weight_hh_l0, rnn.weight_hh_l1]
    assert all(unitarity_error(w) < 1e-14 for w in weights)
    optimizer = torch.optim.RMSprop(rnn.parameters(), lr=1e-2)
    projector = Projector(rnn).attach(optimizer)
    assert list(projector.constraints) == ["weight_hh_l0", "weight_hh_l1"]
    start = [w.clone() for w in weights]
    for _ in range(5):
        optimizer.zero_grad()
        (rnn(torch.randn(4, 5, 3))[0] - 1).abs().square().mean().backward()
        optimizer.step()
    assert all(unitarity_error(w) < 1e-13 for w in weights)
    assert all(not torch.equal(w, s) for w, s in zip(weights, start, strict=True))


def test_can_be_copied_and_pickled():
    rnn = UnitaryRNN(3, 5)
    input = torch.randn(2, 4, 3)
    for twin in (copy.deepcopy(rnn), pickle.loads(pickle.dumps(rnn))):
        torch.testing.assert_close(twin(input), rnn(input))
        assert list(Projector(twin).constraints) == ["weight_hh_l0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"init": "xavier"}, "unknown init 'xavier'"), ({"dtype": torch.float16}, "half precision")],
    ids=str,
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_refuses_inits_and_dtypes_that_cannot_work(options, message, device):
    with pytest.raises(ValueError, match=message):
        UnitaryRNN(3, 5, **options, device=device)


def test_declares_the_weights_of_both_directions():
    rnn = UnitaryRNN(3, 6, 2, bidirectional=True)
    assert list(Projector(rnn).constraints) == [
        "weight_hh_l0",
        "weight_hh_l0_reverse",
        "weight_hh_l1",
        "weight_hh_l1_reverse",
    ]
    assert all(unitarity_error(rnn.get_parameter(name)) < 1e-6 for name in Projector(rnn).constraints)


def test_a_layer_made_on_the_meta_device_is_declared_when_a_state_dict_gives_it_values():
    rnn, trained = UnitaryRNN(3, 5, device="meta"), UnitaryRNN(3, 5)
    rnn.load_state_dict(trained.state_dict(), assign=True)
    assert list(Projector(rnn).constraints) == ["weight_hh_l0"]
    input = torch.randn(2, 4, 3)
    assert torch.equal(rnn(input)[0], trained(input)[0])


def test_refuses_an_option_that_it_does_not_have():
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonlinearty'"):
        UnitaryRNN(3, 5, nonlinearty="relu")
