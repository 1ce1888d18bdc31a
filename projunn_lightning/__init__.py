"""projUNN for PyTorch Lightning: networks whose weights stay exactly orthogonal or unitary.

Kiani, Balestriero, LeCun and Lloyd, "projUNN: efficient method for training deep networks with unitary matrices",
NeurIPS 2022, arXiv 2203.05483.
"""

from projunn_lightning import functional
from projunn_lightning.constraint import ConstraintError, orthogonal
from projunn_lightning.projector import Projector

__all__ = ["ConstraintError", "Projector", "functional", "orthogonal"]
