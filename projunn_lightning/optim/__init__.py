"""The projector, which replaces the steps of an optimizer by steps on the manifold."""

from projunn_lightning.optim.projector import Projector
from projunn_lightning.optim.settings import ProjUNNSettings, as_patterns, check_names, chunks_for
from projunn_lightning.optim.step import OnUpdate

__all__ = ["OnUpdate", "ProjUNNSettings", "Projector", "as_patterns", "check_names", "chunks_for"]
