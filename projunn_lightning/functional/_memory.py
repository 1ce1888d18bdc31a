"""Memory for large results."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache

from torch import Tensor

_HUGE = 1 << 21  # the size of a huge page of Linux on x86-64, in bytes


def empty(*size: int, like: Tensor) -> Tensor:
    """An uninitialised tensor of the dtype and on the device of another, in huge pages where Linux has them.

    The system clears the memory of a large tensor page by page when it is first written. With pages of 4 kB this can
    take as long as a whole recurrence; ``benchmarks/NOTES.md`` has the figures.
    """
    tensor = like.new_empty(size)
    if tensor.device.type == "cpu" and tensor.nbytes >= 2 * _HUGE and (madvise := _madvise()) is not None:
        first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (tensor.data_ptr() + tensor.nbytes - first) // mmap.PAGESIZE * mmap.PAGESIZE
        madvise(first, length, mmap.MADV_HUGEPAGE)  # this is advice: if the system refuses it, nothing changes
    return tensor


@cache
def _madvise() -> ctypes._NamedFuncPointer | None:
    if not hasattr(mmap, "MADV_HUGEPAGE"):  # not on macOS and Windows
        return None
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    return madvise
