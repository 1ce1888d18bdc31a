"""What happens at ``optimizer.step()``."""

from projunn_lightning.optim.projector import Projector

__all__ = ["Projector"]
