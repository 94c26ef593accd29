"""The queue between requests and the model."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest

from partclipseg.apps.serve.queue import Batcher, QueueFullError


class Gate:
    """Work that waits until the test opens it, and remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[tuple] = []
        self.open = threading.Event()
        self.entered = threading.Event()

    def __call__(self, key, values):
        self.entered.set()
        assert self.open.wait(60)
        self.batches.append((key, list(values)))
        if "bad" in values:
            raise ValueError("a bad value")
        return [f"{key}{value}" for value in values]


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def make(gate):
    batchers = []

    def start(**options):
        batchers.append(Batcher(gate, **{"max_jobs": 10, "max_weight": 100, "batch_size": 3, **options}))
        return batchers[-1]

    yield start
    gate.open.set()
    for batcher in batchers:
        batcher.close()


def blocked(batcher, gate):
    """The worker is busy with a first job, so that what follows waits."""
    first = batcher.submit("x", 0)
    assert gate.entered.wait(60)
    return first


def test_jobs_of_one_key_go_together_and_the_oldest_decides(make, gate):
    batcher = make()
    futures = [blocked(batcher, gate)]
    futures += [batcher.submit(key, value) for value, key in enumerate("abaabaa", start=1)]
    assert len(batcher) == 7
    gate.open.set()
    assert [future.result(60) for future in futures] == ["x0", "a1", "b2", "a3", "a4", "b5", "a6", "a7"]
    assert gate.batches == [("x", [0]), ("a", [1, 3, 4]), ("b", [2, 5]), ("a", [6, 7])]


def test_a_full_queue_refuses_at_once(make, gate):
    batcher = make(max_jobs=2)
    blocked(batcher, gate)
    batcher.submit("a", 1)
    batcher.check_room()
    batcher.submit("a", 2)
    for refused in (lambda: batcher.submit("a", 3), batcher.check_room):  # the gate is closed: a wait would not end
        with pytest.raises(QueueFullError, match="2 photos wait"):
            refused()


def test_weights_are_bounded_together_but_one_heavy_job_passes(make, gate):
    batcher = make(max_weight=10)
    blocked(batcher, gate)
    batcher.submit("a", 1, weight=50)
    with pytest.raises(QueueFullError):
        batcher.submit("a", 2, weight=1)


def test_cancelled_jobs_are_not_done_and_make_room(make, gate):
    batcher = make(max_jobs=2)
    blocked(batcher, gate)
    first, second = batcher.submit("a", 1), batcher.submit("a", 2)
    assert first.cancel()
    third = batcher.submit("a", 3)
    gate.open.set()
    assert (second.result(60), third.result(60)) == ("a2", "a3")
    assert gate.batches[1:] == [("a", [2, 3])]


def test_an_error_reaches_every_caller_of_its_batch_and_the_thread_lives(make, gate):
    batcher = make()
    blocked(batcher, gate)
    good, bad, later = batcher.submit("a", 1), batcher.submit("a", "bad"), batcher.submit("b", 2)
    gate.open.set()
    for future in (good, bad):
        with pytest.raises(ValueError, match="a bad value"):
            future.result(60)
    assert later.result(60) == "b2"


def closed(batcher: Batcher) -> bool:
    try:
        batcher.check_room()
    except QueueFullError as error:
        return "stopping" in str(error)
    return False


def test_closing_finishes_what_waits_and_takes_nothing_more(make, gate):
    batcher = make()
    futures = [blocked(batcher, gate), batcher.submit("a", 1), batcher.submit("b", 2)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while not closed(batcher):
        time.sleep(0.001)
    with pytest.raises(QueueFullError, match="stopping"):
        batcher.submit("a", 3)
    gate.open.set()
    closing.join(60)
    assert all(future.done() and not future.exception() for future in futures)


def test_nothing_of_a_finished_job_is_held():
    """Photos are large: the idle worker must not keep the last one."""

    class Photo:
        pass

    batcher = Batcher(lambda key, values: [None] * len(values), max_jobs=1, max_weight=1)
    photo = Photo()
    held = weakref.ref(photo)
    batcher.submit("a", photo).result(60)
    del photo
    for _ in range(100):
        gc.collect()
        if held() is None:
            break
        time.sleep(0.02)
    assert held() is None
    batcher.close()


def test_workers_run_side_by_side():
    """Two batches of one key are in two workers at the same time."""
    both = threading.Barrier(2, timeout=60)

    def work(name):
        def run(key, values):
            both.wait()
            return [(name, value) for value in values]

        return run

    batcher = Batcher(work("a"), work("b"), max_jobs=10, max_weight=100, batch_size=1)
    futures = [batcher.submit("x", number) for number in range(4)]
    found = [future.result(60) for future in futures]
    batcher.close()
    assert [value for _, value in found] == [0, 1, 2, 3]
    assert {name for name, _ in found} == {"a", "b"}
