"""projUNN for PyTorch Lightning: networks whose weights stay exactly orthogonal or unitary.

Kiani, Balestriero, LeCun and Lloyd, "projUNN: efficient method for training deep networks with unitary matrices",
NeurIPS 2022, arXiv 2203.05483.
"""

from projunn_lightning import functional, nn
from projunn_lightning.callbacks import PredictionWriter, ProjUNN, UnitarityMonitor
from projunn_lightning.constraint import ConstraintError, orthogonal
from projunn_lightning.data import AddingProblem, CopyingMemory, ImageClassification, PixelSequence, RandomUnitary
from projunn_lightning.models import ImageClassifier, SequenceModel, UnitaryMatch
from projunn_lightning.parametrized import from_parametrized
from projunn_lightning.projector import Projector

__all__ = [
    "AddingProblem",
    "ConstraintError",
    "CopyingMemory",
    "ImageClassification",
    "ImageClassifier",
    "PixelSequence",
    "PredictionWriter",
    "ProjUNN",
    "Projector",
    "RandomUnitary",
    "SequenceModel",
    "UnitarityMonitor",
    "UnitaryMatch",
    "from_parametrized",
    "functional",
    "nn",
    "orthogonal",
]
