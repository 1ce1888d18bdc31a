"""Parts of a batch in several threads."""

import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest
import torch

from projunn_lightning.functional._threads import in_parts


def forever(part, steps):
    for _ in steps(iter(int, 1)):
        time.sleep(0.001)


class TestTheParts:
    @pytest.mark.parametrize(("size", "parts"), [(8, 2), (7, 3), (2, 4)])
    def test_cover_the_batch_in_order(self, size, parts):
        found = in_parts(lambda part, steps: list(range(size))[part], size, parts)
        assert len(found) == parts
        assert list(itertools.chain(*found)) == list(range(size))

    def test_run_at_the_same_time(self):
        barrier = threading.Barrier(2, timeout=10)
        in_parts(lambda part, steps: barrier.wait(), 2, 2)

    def test_have_one_thread_of_torch_and_no_gradients(self):
        found = in_parts(lambda part, steps: (torch.get_num_threads(), torch.is_grad_enabled()), 2, 2)
        assert found == [(1, False), (1, False)]

    def test_of_one_part_use_the_present_thread(self):
        assert in_parts(lambda part, steps: threading.current_thread(), 2, 1) == [threading.current_thread()]


class TestTheThreadsOfTorch:
    def test_are_as_before_here_and_in_new_threads(self):
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(3)
            in_parts(three_steps, 5, 5)
            found = []
            thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
            thread.start(), thread.join()
            assert (torch.get_num_threads(), found) == (3, [3])
        finally:
            torch.set_num_threads(before)


def three_steps(part, steps):
    return list(steps(range(3)))


def starts():
    return in_parts(lambda part, steps: part.start, 4, 2)


class TestAnotherProcess:
    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_has_threads_of_its_own(self, method):
        assert starts() == [0, 2]  # the threads of this process exist when the other one is forked
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply_async(starts).get(timeout=60) == [0, 2]


AT_THE_END = """
import threading, time
from tests.functional.test_threads import starts

def later():
    time.sleep(0.5)  # the main thread has ended by then
    print(starts())

threading.Thread(target=later).start()
"""


def test_the_present_thread_takes_the_parts_while_the_interpreter_shuts_down():
    assert subprocess.run([sys.executable, "-c", AT_THE_END], capture_output=True, check=True).stdout == b"[0, 2]\n"


class TestAnException:
    def test_of_a_part_stops_the_others_and_is_raised(self):
        def run(part, steps):
            if part.start:
                raise MemoryError("of the second part")
            forever(part, steps)

        with pytest.raises(MemoryError, match="of the second part"):
            in_parts(run, 2, 2)

    def test_from_the_keyboard_stops_the_parts(self):
        ended = []

        def run(part, steps):
            if not part.start:
                threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                forever(part, steps)
            finally:
                ended.append(part)

        with pytest.raises(KeyboardInterrupt):
            in_parts(run, 2, 2)
        assert len(ended) == 2

    def test_does_not_keep_the_tensors_of_the_parts(self):
        kept = []

        def run(part, steps):
            large = torch.ones(3)
            kept.append(weakref.ref(large))
            raise MemoryError

        gc.disable()
        try:
            with pytest.raises(MemoryError):
                in_parts(run, 2, 2)
            assert all(each() is None for each in kept)
        finally:
            gc.enable()

    def test_leaves_the_threads_usable(self):
        self.test_of_a_part_stops_the_others_and_is_raised()
        self.test_from_the_keyboard_stops_the_parts()
        assert in_parts(lambda part, steps: part.start, 2, 2) == [0, 1]
