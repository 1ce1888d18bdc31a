"""The unitary matrices of rival methods, as functions of free parameters: modules that are called without arguments."""

from projunn_lightning.nn.baselines.eunn import GivensLayers
from projunn_lightning.nn.baselines.exprnn import SkewMap
from projunn_lightning.nn.baselines.ornn import Householder
from projunn_lightning.nn.baselines.urnn import PhasesReflectionsFourier

__all__ = ["GivensLayers", "Householder", "PhasesReflectionsFourier", "SkewMap"]
