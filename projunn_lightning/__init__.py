"""projUNN for PyTorch Lightning: networks whose weights stay exactly orthogonal or unitary.

Kiani, Balestriero, LeCun and Lloyd, "projUNN: efficient method for training deep networks with unitary matrices",
NeurIPS 2022, arXiv 2203.05483.
"""
