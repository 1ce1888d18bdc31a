"""Torch modules: unitary layers, networks of them, and the recurrent layers of other methods for comparison."""

from projunn_lightning.nn.activations import ACTIVATIONS, Abs, GroupSort
from projunn_lightning.nn.cnn import ARCHITECTURES, ArchitectureName, CNNOptions, PlainCNN, ResNet9
from projunn_lightning.nn.convolutions import CONVOLUTIONS
from projunn_lightning.nn.elman import ElmanRNN
from projunn_lightning.nn.fourier_conv import FourierConv2d
from projunn_lightning.nn.mapped_rnn import MappedRNN
from projunn_lightning.nn.modrelu import ModReLU
from projunn_lightning.nn.norm_pool import NormPool2d
from projunn_lightning.nn.orthogonal_conv import OrthogonalConv2d
from projunn_lightning.nn.orthogonal_conv_transpose import OrthogonalConvTranspose2d
from projunn_lightning.nn.rnns import RNNS, RecurrentLayer, RNNName, make_rnn
from projunn_lightning.nn.unitary_rnn import UnitaryRNN

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "CONVOLUTIONS",
    "RNNS",
    "Abs",
    "ArchitectureName",
    "CNNOptions",
    "ElmanRNN",
    "FourierConv2d",
    "GroupSort",
    "MappedRNN",
    "ModReLU",
    "NormPool2d",
    "OrthogonalConv2d",
    "OrthogonalConvTranspose2d",
    "PlainCNN",
    "RNNName",
    "RecurrentLayer",
    "ResNet9",
    "UnitaryRNN",
    "make_rnn",
]
