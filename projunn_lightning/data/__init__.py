"""LightningDataModules of the sequence tasks."""

from projunn_lightning.data.adding import AddingProblem
from projunn_lightning.data.copying import CopyingMemory

__all__ = ["AddingProblem", "CopyingMemory"]
