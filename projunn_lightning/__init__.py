"""projUNN for PyTorch Lightning: networks whose weights stay exactly orthogonal or unitary.

Kiani, Balestriero, LeCun and Lloyd, "projUNN: efficient method for training deep networks with unitary matrices",
NeurIPS 2022, arXiv 2203.05483.

The public names stand in ``__init__.pyi``. Each is imported when it is first used, so that
``from projunn_lightning import Projector`` loads torch but not Lightning.
"""

import lazy_loader

__getattr__, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)

# The submodules are attributes, but `import *` leaves them out: `nn` would shadow that of torch.
__all__ = [name for name in _names if name not in ("functional", "nn")]
