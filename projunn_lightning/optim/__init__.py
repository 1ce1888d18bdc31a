"""What happens at ``optimizer.step()``."""

from projunn_lightning.optim.projector import Projector
from projunn_lightning.optim.settings import ProjUNNSettings, as_patterns, check_names
from projunn_lightning.optim.step import OnUpdate

__all__ = ["OnUpdate", "ProjUNNSettings", "Projector", "as_patterns", "check_names"]
