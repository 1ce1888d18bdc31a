"""The recurrent layers that can be compared, by name. A new layer is a class in a file of its own and an entry here."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn

from projunn_lightning.errors import ProjUNNError, at_least, one_of, probability
from projunn_lightning.functional import Nonlinearity
from projunn_lightning.nn._precision import COMPLEX, REAL, layer_dtype
from projunn_lightning.nn.baselines.eunn import EUNN, FFTEUNN
from projunn_lightning.nn.baselines.exprnn import RGD, DTriv, ExpRNN, ScoRNN
from projunn_lightning.nn.baselines.ornn import ORNN
from projunn_lightning.nn.baselines.urnn import URNN
from projunn_lightning.nn.unitary_rnn import UnitaryRNN

_TORCH = ("bias", "batch_first", "dropout", "bidirectional", "dtype", "device")


@dataclass(frozen=True)
class RecurrentLayer:
    """An entry of :data:`RNNS`.

    Attributes:
        kind: the class. Its docstring describes the layer, and it is called as ``kind(input_size, hidden_size,
            num_layers, **options)``.
        dtypes: the dtypes that it can have. Its default is torch's default dtype, or the complex dtype of the same
            precision where all are complex.
        undeclared: the names of options that it takes although its signature does not show them.
        nonlinearities: the nonlinearities that it can have.
    """

    kind: type[nn.Module]
    dtypes: tuple[torch.dtype, ...] = (*REAL, *COMPLEX)
    undeclared: tuple[str, ...] = ()
    nonlinearities: tuple[str, ...] = get_args(Nonlinearity)

    @property
    def summary(self) -> str:
        """What the layer is, in one line for tables."""
        if getattr(nn, self.kind.__name__, None) is self.kind:
            return f":class:`torch.nn.{self.kind.__name__}`, whose recurrent matrix is free"
        return (inspect.getdoc(self.kind) or "").partition("\n\n")[0]

    @property
    def options(self) -> list[str]:
        """The names of its options: those of the class, then those of the bases to which it hands on ``**options``."""
        names: list[str] = []
        for base in self.kind.__mro__:
            parameters = inspect.signature(base).parameters.values()
            names += [p.name for p in parameters if _is_option(p) and p.name not in names]
            if all(p.kind is not p.VAR_KEYWORD for p in parameters):
                break
        return [*names, *self.undeclared]


def _is_option(parameter: inspect.Parameter) -> bool:
    """Whether a parameter of a class is an option, and no size and no ``**options``."""
    return parameter.default is not parameter.empty and parameter.name != "num_layers"


RNNS = {
    "projunn": RecurrentLayer(UnitaryRNN),
    "rnn": RecurrentLayer(nn.RNN, REAL, ("nonlinearity", *_TORCH), ("tanh", "relu")),
    "gru": RecurrentLayer(nn.GRU, REAL, _TORCH),
    "lstm": RecurrentLayer(nn.LSTM, REAL, _TORCH),
    "eunn": RecurrentLayer(EUNN),
    "eunn_fft": RecurrentLayer(FFTEUNN),
    "exprnn": RecurrentLayer(ExpRNN),
    "dtriv": RecurrentLayer(DTriv),
    "scornn": RecurrentLayer(ScoRNN),
    "ornn": RecurrentLayer(ORNN),
    "urnn": RecurrentLayer(URNN, COMPLEX),
    "rgd": RecurrentLayer(RGD),
}
"""The recurrent layers by name."""

if TYPE_CHECKING:
    RNNName = str
else:
    RNNName = Literal[tuple(RNNS)]  # the help of the command shows these choices


def make_rnn(name: RNNName, input_size: int, hidden_size: int, num_layers: int = 1, **options: Any) -> nn.Module:
    """Make a recurrent layer by its name in :data:`RNNS`.

    Args:
        name: the name.
        input_size: the number of features of the input, I.
        hidden_size: the number of features of the state, N.
        num_layers: the number of layers; each layer reads the states of the layer below.
        options: the options of the class ``RNNS[name].kind``. All have defaults; ``batch_first`` is true by default.

    Returns:
        A module that is called as ``output, state = layer(input)`` or ``layer(input, state)``. It maps an input
        ``(B, T, I)`` to an output ``(B, T, N)``, or ``(B, T, 2 N)`` if it is bidirectional.

    Raises:
        ProjUNNError: if the name is unknown, a size is below 1, ``dropout`` is not a probability, or the layer does not
            have an option or the dtype. Other values are checked by the class itself.

    >>> make_rnn("dtriv", 3, 8, capacity=2)
    Traceback (most recent call last):
    projunn_lightning.errors.ProjUNNError: the recurrent layer 'dtriv' has no option 'capacity'; its options are \
period, init, nonlinearity, bias, batch_first, dropout, bidirectional, input_init, dtype, device
    """
    one_of("recurrent layer", name, RNNS)
    layer = RNNS[name]
    for option in options:
        if option not in layer.options:
            raise ProjUNNError(
                f"the recurrent layer {name!r} has no option {option!r}; its options are {', '.join(layer.options)}"
            )
    at_least(1, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
    dtype = layer_dtype(None, complex=layer.dtypes == COMPLEX)
    options = {"batch_first": True, "dropout": 0.0, "dtype": dtype, **options}
    probability(dropout=options["dropout"])
    if options["dtype"] not in layer.dtypes:
        raise ProjUNNError(
            f"the recurrent layer {name!r} cannot have the dtype {options['dtype']}, expected one of "
            f"{', '.join(map(str, layer.dtypes))}; the option complex of SequenceModel chooses a complex one"
        )
    return layer.kind(input_size, hidden_size, num_layers, **options)
