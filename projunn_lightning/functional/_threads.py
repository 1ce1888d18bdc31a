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
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, TypeVar

import torch

T = TypeVar("T")
S = TypeVar("S")

_start = threading.Lock()  # held while a thread starts and while the pool is made
_pool: ThreadPoolExecutor | None = None


class Steps(Protocol):
    """A function that iterates over pieces of work, and ends by an exception if the computation was interrupted."""

    def __call__(self, pieces: Iterable[S], /) -> Iterator[S]: ...


def in_parts(function: Callable[[slice, Steps], T], size: int, parts: int) -> list[T]:
    """Call a function for each part of a batch, at the same time.

    Args:
        function: a function of the part, as a slice of the batch, and of a function by which it iterates over the
            pieces of its work, such as chunks of time steps. With one part it is called in the present thread. With
            several parts gradients are disabled, and the tensors that it makes are inference tensors.
        size: the number of elements of the batch.
        parts: the number of parts.

    Returns:
        The results in the order of the parts.

    Raises:
        BaseException: if a part raises an exception, or the present thread is interrupted. All parts stop at the end of
            their pieces of work before it is raised.
    """
    if parts == 1:
        return [function(slice(None), iter)]
    bounds = [size * i // parts for i in range(parts + 1)]
    interrupted = threading.Event()

    def steps(pieces: Iterable[Any]) -> Iterator[Any]:
        for piece in pieces:
            if interrupted.is_set():
                raise CancelledError
            yield piece

    futures: list[Future[T]] = []
    future = None
    try:
        for ends in itertools.pairwise(bounds):
            futures.append(_submitted(torch.inference_mode()(function), slice(*ends), steps))
        for future in wait(futures, return_when=FIRST_EXCEPTION).done:
            future.result()  # raises the exception of the part, if there is one
        return [future.result() for future in futures]
    except BaseException:  # including KeyboardInterrupt in this thread
        interrupted.set()
        wait(futures)
        raise
    finally:  # an exception refers to this frame, and its future to the exception
        futures, future = [], None


def _submitted(function: Callable[[slice, Steps], T], part: slice, steps: Steps) -> Future[T]:
    """The future of a part. The present thread computes it if no other thread can, as at the end of the interpreter."""
    try:
        return _threads().submit(function, part, steps)
    except RuntimeError:
        done: Future[T] = Future()
        done.set_result(function(part, steps))
        return done


def _threads() -> ThreadPoolExecutor:
    global _pool
    with _start:
        if _pool is None:
            _pool = ThreadPoolExecutor(os.cpu_count(), "projunn_lightning", initializer=_use_one_thread)
        return _pool


def _use_one_thread() -> None:
    """Let torch use one thread in the present thread only.

    ``torch.set_num_threads`` sets the number for the thread that calls it, and the number with which later threads
    begin. A thread that ends at once sets this second number back. A thread of the program that begins in this short
    moment has one thread too. This happens once for each thread of the pool.
    """
    with _start:
        others, changed = torch.get_num_threads(), threading.Event()

        def undo() -> None:
            changed.wait()
            torch.set_num_threads(others)

        thread = threading.Thread(target=undo)
        thread.start()  # before the change, so that nothing is changed if no thread can begin
        try:
            torch.set_num_threads(1)
        finally:
            changed.set()
            thread.join()


def _forget() -> None:
    """Forget the threads of the parent process, which do not exist in a forked process."""
    global _pool, _start
    _pool, _start = None, threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget)
