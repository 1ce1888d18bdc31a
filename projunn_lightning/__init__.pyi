from . import functional as functional
from . import nn as nn
from .callbacks import PredictionWriter, ProjUNN, RNGState, UnitarityMonitor
from .constraint import from_parametrized, orthogonal
from .data import AddingProblem, CopyingMemory, ImageClassification, PixelSequence, RandomUnitary
from .errors import ConfigError, ConstraintError, ProjUNNError
from .models import CertifiedAccuracy, ImageClassifier, SequenceModel, UnitaryMatch
from .optim import Projector

__all__ = [
    "AddingProblem",
    "CertifiedAccuracy",
    "ConfigError",
    "ConstraintError",
    "CopyingMemory",
    "ImageClassification",
    "ImageClassifier",
    "PixelSequence",
    "PredictionWriter",
    "ProjUNN",
    "ProjUNNError",
    "Projector",
    "RNGState",
    "RandomUnitary",
    "SequenceModel",
    "UnitarityMonitor",
    "UnitaryMatch",
    "from_parametrized",
    "orthogonal",
]
