"""Real processes that communicate by gloo, for tests of distributed runs."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any


class World:
    """Processes that wait for functions to call. They have the environment in which ``torchrun`` starts processes.

    Starting the processes takes seconds, and a call takes none, so one world serves many tests. Functions are sent by
    name and must be at the top level of a module.
    """

    def __init__(self, size: int = 2) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = get_context("spawn")
        self.ends, self.processes = [], []
        for rank in range(size):
            end, other = context.Pipe()
            self.ends.append(end)
            self.processes.append(context.Process(target=_serve, args=(rank, size, port, other), daemon=True))
            self.processes[-1].start()
            other.close()

    def __call__(self, function: Callable[..., Any], *args: Any, timeout: float = 120, **options: Any) -> list[Any]:
        """Call a function on each rank, and return the results of all ranks.

        Raises:
            RuntimeError: with the traceback of a rank on which the function failed.
            EOFError: if a process has died.
            TimeoutError: if a rank does not answer. The world cannot be used afterwards.
        """
        for end in self.ends:
            end.send((function, args, options))
        results = []
        for rank, end in enumerate(self.ends):
            if not end.poll(timeout):
                self.close()
                raise TimeoutError(f"rank {rank} has not answered within {timeout} s")
            results.append(end.recv())
        for rank, (result, error) in enumerate(results):
            if error is not None:
                raise RuntimeError(f"on rank {rank}:\n{error}")
            del result
        return [result for result, _ in results]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def _serve(rank: int, size: int, port: int, end: Connection) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "tests",
    }
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    while True:
        function, args, options = end.recv()
        try:
            end.send((function(*args, **options), None))
        except BaseException:  # including SystemExit
            end.send((None, traceback.format_exc()))
