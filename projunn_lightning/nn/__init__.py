"""Torch modules: unitary layers that declare their own constraint, networks of them, and their rivals."""

from projunn_lightning.nn import rivals
from projunn_lightning.nn.cells import make_cell
from projunn_lightning.nn.cnn import PlainCNN, ResNet9
from projunn_lightning.nn.mapped_rnn import MappedRNN
from projunn_lightning.nn.modrelu import ModReLU
from projunn_lightning.nn.orthogonal_conv import OrthogonalConv2d
from projunn_lightning.nn.unitary_rnn import UnitaryRNN

__all__ = [
    "MappedRNN",
    "ModReLU",
    "OrthogonalConv2d",
    "PlainCNN",
    "ResNet9",
    "UnitaryRNN",
    "make_cell",
    "rivals",
]
