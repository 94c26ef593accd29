"""The HTTP API under load: shared batches, full queues, slow answers, no memory, faults."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import torch
from tests.apps.serve.api_requests import URL, WORDS, picture, post

from partclipseg.vocabulary import Vocabulary

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from partclipseg.apps.serve.api import create_api
from partclipseg.apps.serve.engine import Engine
from partclipseg.inference.segmenter import PartSegmenter


def test_requests_of_one_vocabulary_share_batches(make_engine, photo, monkeypatch):
    """While one batch runs, those that arrive become the next; results stay with their photos."""
    engine = make_engine()
    segmenter = engine.segmenters["random"]
    batches, running, go = [], threading.Event(), threading.Event()
    original = type(segmenter).label_maps

    def slow(self, inputs, *arguments):
        batches.append(len(inputs["pixel_values"]))
        running.set()
        assert go.wait(60)
        return original(self, inputs, *arguments)

    monkeypatch.setattr(type(segmenter), "label_maps", slow)
    photos = [picture(30 + 7 * number, 40, number) for number in range(6)]
    answers: dict[int, dict] = {}
    with TestClient(create_api(engine)) as client:

        def ask(number: int) -> None:
            answers[number] = post(client, photos[number], vocabulary=WORDS).json()

        threads = [threading.Thread(target=ask, args=[number]) for number in range(6)]
        threads[0].start()
        assert running.wait(60)
        for thread in threads[1:]:
            thread.start()
        while engine.waiting < 5:
            pass
        go.set()
        for thread in threads:
            thread.join()
    assert batches == [1, 5]
    go.set()
    for number, content in answers.items():
        alone = segmenter(photos[number], WORDS).to_dict()["segments"]
        assert content["width"] == 30 + 7 * number
        for one, other in zip(content["segments"], alone, strict=True):
            # A batch may sum in another order than a single photo: the last digits of the mean score may differ.
            assert {**one, "score": 0} == {**other, "score": 0}
            assert one["score"] == pytest.approx(other["score"], abs=2e-4)


def block(engine: Engine, monkeypatch) -> threading.Event:
    """Keep the model busy until the event is set."""
    go, entered = threading.Event(), threading.Event()

    segment = PartSegmenter.__call__

    def slow(*arguments, **options):
        entered.set()
        assert go.wait(60)
        return segment(*arguments, **options)

    monkeypatch.setattr(PartSegmenter, "__call__", slow)
    from partclipseg.apps.serve.engine import PhotoTask

    engine.submit(PhotoTask("random", Vocabulary.from_text(WORDS), None), np.zeros((2, 2, 3), np.uint8))
    assert entered.wait(60)
    return go


def test_a_full_queue_answers_503_at_once(make_engine, photo, monkeypatch):
    engine = make_engine(queue=1, timeout=250)
    go = block(engine, monkeypatch)
    client = TestClient(create_api(engine))
    waiting = threading.Thread(target=post, args=[client, photo], kwargs={"vocabulary": WORDS}, daemon=True)
    waiting.start()
    while engine.waiting < 1:
        time.sleep(0.01)
    answer = post(client, photo, vocabulary=WORDS)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert "busy" in answer.json()["detail"]
    assert waiting.is_alive()  # nothing is waited for: the request before it is not answered yet
    go.set()


def test_bodies_that_are_being_received_are_bounded_together(make_engine, photo):
    """By their bytes: those who send slowly keep nobody out, those who send much are refused."""
    body = httpx.Request("POST", "http://x", files={"photo": photo}, data={"vocabulary": WORDS})
    content = body.read()
    app = create_api(make_engine(queue=1, max_held=3 * len(content) - 3))
    started, go = 0, asyncio.Event()

    async def upload(first: int) -> AsyncIterator[bytes]:
        nonlocal started
        yield content[:first]
        started += 1
        await go.wait()
        yield content[first:]

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:

            async def send(content: bytes | AsyncIterator[bytes]) -> httpx.Response:
                return await client.post(URL, content=content, headers=dict(body.headers))

            async def begin(count: int, first: int) -> list[asyncio.Task]:
                before = started
                tasks = [asyncio.create_task(send(upload(first))) for _ in range(count)]
                while started < before + count:
                    await asyncio.sleep(0.01)
                return tasks

            slow = await begin(20, first=9)
            assert (await asyncio.wait_for(send(content), 60)).status_code == 200
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
            large = await begin(2, first=len(content) - 1)
            refused = await asyncio.wait_for(send(content), 60)
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "2"
            assert "receives too many bytes at once: try again" in refused.json()["detail"]
            go.set()
            assert 200 in [(await task).status_code for task in large]  # the other may find the queue full
            assert (await send(content)).status_code == 200  # what they held is given back

    asyncio.run(ask())


def test_photos_are_decoded_on_the_cores_of_this_process(engine, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "partclipseg.apps.serve.intake.ThreadPoolExecutor", lambda count, **options: asked.append(count)
    )
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    create_api(engine)
    assert asked == [3]


def test_a_slow_answer_is_504_and_leaves_the_queue(make_engine, photo, monkeypatch):
    engine = make_engine(timeout=0.3, queue=1)
    go = block(engine, monkeypatch)
    answer = post(TestClient(create_api(engine)), photo, vocabulary=WORDS)
    assert answer.status_code == 504
    assert "0.3 seconds" in answer.json()["detail"]
    engine.check_room()  # the queue of one photo is free again
    go.set()


def test_photos_whose_requests_have_timed_out_take_no_further_threads(make_engine, photo, monkeypatch):
    """A photo is decoded to its end, also when its client has got 504: others wait for its thread."""
    engine, go, running, most = make_engine(timeout=0.2), threading.Event(), [], []
    monkeypatch.setattr("partclipseg.apps.serve.intake.usable_cores", lambda: 1)

    def slow(self, content):
        running.append(content)
        most.append(len(running))
        assert go.wait(60)
        running.pop()
        return read(self, content)

    read = Engine.read_photo
    monkeypatch.setattr(Engine, "read_photo", slow)
    with TestClient(create_api(engine)) as client:
        assert {post(client, photo, vocabulary=WORDS).status_code for _ in range(4)} == {504}
        go.set()
        while post(client, photo, vocabulary=WORDS).status_code != 200:  # its first pass may take too long
            pass
    assert set(most) == {1}


def of_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def of_python() -> None:
    raise MemoryError


def of_a_cpu() -> None:
    torch.empty(1 << 50)  # a petabyte: a RuntimeError, and whatever it says in this version of PyTorch


@pytest.mark.parametrize(
    ("where", "fail"),
    [
        ("apps.serve.engine.read_photo", of_python),
        ("models.partclipseg.model.PartCLIPSegModel.label_maps", of_python),
        ("models.partclipseg.model.PartCLIPSegModel.label_maps", of_a_cpu),
        ("models.partclipseg.model.PartCLIPSegModel.label_maps", of_a_gpu),
        ("inference.result.PartResult.documents", of_python),
        ("inference.result.PartResult.documents", of_a_cpu),
        ("inference.result.PartResult.documents", of_a_gpu),
    ],
)
def test_no_memory_is_503(make_engine, photo, monkeypatch, where, fail):
    monkeypatch.setattr(f"partclipseg.{where}", lambda *arguments, **options: fail())
    client = TestClient(create_api(make_engine()), raise_server_exceptions=False)
    answer = post(client, photo, vocabulary=WORDS)
    assert answer.status_code == 503
    assert "no memory" in answer.json()["detail"]


def test_words_of_many_requests_are_read_at_once(make_engine):
    """A tokenizer that two threads call at once fails in one of them."""
    engine = make_engine()
    done = threading.Event()

    def asked(number: int) -> int:
        count = 0
        while not done.is_set():
            assert engine.unknown_words("random", Vocabulary.from_text(f"dog: ear, leg, {'part' * number}")) == []
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(asked, number) for number in range(1, 4)]
        try:
            for number in range(200):  # as the model's thread does
                engine.segmenters["random"].text_embeddings([f"a{number}", f"a word {number}", "of other length"])
        finally:
            done.set()
        assert all(other.result() for other in others)


def test_a_fault_of_the_server_is_a_sentence_too(make_engine, photo, monkeypatch):
    engine = make_engine()

    def fail(*_, **__):
        raise RuntimeError("a secret")

    monkeypatch.setattr(PartSegmenter, "__call__", fail)
    client = TestClient(create_api(engine), raise_server_exceptions=False)
    answer = post(client, photo, vocabulary=WORDS)
    assert answer.status_code == 500
    assert answer.json() == {"detail": "a fault of this server, whose log says more: try another photo or other words"}
    assert answer.headers["connection"] == "close"  # a request that is sent there meanwhile would be lost
    with pytest.raises(RuntimeError, match="a secret"):  # goes on to uvicorn, which logs it
        post(TestClient(create_api(engine)), photo, vocabulary=WORDS)
