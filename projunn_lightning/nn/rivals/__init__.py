"""The unitary matrices of rival methods, as functions of free parameters: modules that are called without arguments."""

from projunn_lightning.nn.rivals.fourier import PhasesReflectionsFourier
from projunn_lightning.nn.rivals.givens import GivensLayers
from projunn_lightning.nn.rivals.householder import Householder
from projunn_lightning.nn.rivals.skew import SkewMap

__all__ = ["GivensLayers", "Householder", "PhasesReflectionsFourier", "SkewMap"]
