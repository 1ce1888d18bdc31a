"""Torch modules: unitary layers that declare their own constraint, and networks of them."""

from projunn_lightning.nn.cnn import PlainCNN, ResNet9
from projunn_lightning.nn.modrelu import ModReLU
from projunn_lightning.nn.orthogonal_conv import OrthogonalConv2d
from projunn_lightning.nn.unitary_rnn import UnitaryRNN

__all__ = ["ModReLU", "OrthogonalConv2d", "PlainCNN", "ResNet9", "UnitaryRNN"]
