"""Parts of a batch, each computed by a Python thread of its own in which torch uses one thread.

A loop over time steps calls many short operators. If torch divides each operator among its threads, they wait for each
other at every step. Threads that run the whole loop for a part of the batch wait once. torch's operators release
Python's lock, so these threads run at the same time.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from typing import Any, Protocol, TypeVar

import torch

T = TypeVar("T")
S = TypeVar("S")

_start = threading.Lock()  # held while a thread starts and while the pool is made
_pool: ThreadPoolExecutor | None = None


class Steps(Protocol):
    """A function that iterates over time steps, and stops by an exception if the computation was interrupted."""

    def __call__(self, steps: Iterable[S], /) -> Iterator[S]: ...


def in_parts(function: Callable[[slice, Steps], T], size: int, parts: int) -> list[T]:
    """Call a function for each part of a batch, at the same time.

    Args:
        function: a function of the part, as a slice of the batch, and of a function by which it iterates over its time
            steps. Gradients are disabled. With one part it is called in the present thread, with torch's threads.
        size: the number of elements of the batch.
        parts: the number of parts.

    Returns:
        The results in the order of the parts.

    If one part raises an exception, or this thread is interrupted, all parts stop at their next step and the exception
    is raised after that.
    """
    if parts == 1:
        return [function(slice(None), iter)]
    bounds = [size * i // parts for i in range(parts + 1)]
    interrupted = threading.Event()

    def steps(all_steps: Iterable[Any]) -> Iterator[Any]:
        for step in all_steps:
            if interrupted.is_set():
                raise CancelledError
            yield step

    pool = _threads()
    futures = [
        pool.submit(torch.inference_mode()(function), slice(*ends), steps) for ends in itertools.pairwise(bounds)
    ]
    try:
        for future in wait(futures, return_when=FIRST_EXCEPTION).done:
            future.result()  # raises the exception of the part, if there is one
    except BaseException:  # including KeyboardInterrupt in this thread
        interrupted.set()
        wait(futures)
        raise
    return [future.result() for future in futures]


def _threads() -> ThreadPoolExecutor:
    global _pool
    with _start:
        if _pool is None:
            _pool = ThreadPoolExecutor(os.cpu_count(), "projunn_lightning", initializer=_use_one_thread)
        return _pool


def _use_one_thread() -> None:
    """Let torch use one thread in the present thread only.

    ``torch.set_num_threads`` sets the number for the thread that calls it, and the number with which later threads
    start. A thread that ends at once sets this second number back.
    """
    with _start:
        others = torch.get_num_threads()
        torch.set_num_threads(1)
        undo = threading.Thread(target=torch.set_num_threads, args=(others,))
        undo.start()
        undo.join()


def _forget() -> None:
    """Forget the threads of the parent process, which do not exist in a forked process."""
    global _pool, _start
    _pool, _start = None, threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget)
