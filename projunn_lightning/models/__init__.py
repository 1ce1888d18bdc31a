"""LightningModules."""

from projunn_lightning.models.sequence import SequenceModel

__all__ = ["SequenceModel"]
