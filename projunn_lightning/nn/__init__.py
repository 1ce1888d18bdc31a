"""Torch modules: unitary layers that declare their own constraint, networks of them, and their rivals."""

from projunn_lightning.nn import baselines
from projunn_lightning.nn.cnn import ARCHITECTURES, ArchitectureName, CNNOptions, PlainCNN, ResNet9
from projunn_lightning.nn.mapped_rnn import MappedRNN
from projunn_lightning.nn.modrelu import ModReLU
from projunn_lightning.nn.orthogonal_conv import OrthogonalConv2d
from projunn_lightning.nn.rnns import make_rnn
from projunn_lightning.nn.unitary_rnn import UnitaryRNN

__all__ = [
    "ARCHITECTURES",
    "ArchitectureName",
    "CNNOptions",
    "MappedRNN",
    "ModReLU",
    "OrthogonalConv2d",
    "PlainCNN",
    "ResNet9",
    "UnitaryRNN",
    "baselines",
    "make_rnn",
]
