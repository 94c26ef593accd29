"""Does ``partclipseg serve`` hold up: many clients at once, memory over rounds, and a queue that is full?

    python benchmarks/serve.py                                       # built-in model, 200 requests of 16 clients
    python benchmarks/serve.py --requests 40 --clients 8 --rounds 2 --model DIR
    python benchmarks/serve.py --workers 1 2 --rounds 1 --memory-requests 2000      # by workers, then memory

Starts servers on free loopback ports, sends rendered scenes of 384×384 pixels with changing vocabularies, and prints
JSON: for each number of workers answers by status, requests lost, requests a second, latencies in seconds, and resident
memory in MB before and after each round; with `--memory-requests` the memory of a further server, with the first number
of workers, over that many requests in tenths; then, of a server whose queue holds two photos, how fast refusals came.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
from PIL import Image

from partclipseg.shapes.renderer import render_scene

VOCABULARIES = ("dog: head, ear, leg, tail; car: wheel, window", "bus: wheel, door, window", "owl: head, beak, wing")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200, help="requests in one round")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--model", help="directory or hub name; left out: the built-in model")
    parser.add_argument("--workers", type=int, nargs="+", default=[1], help="copies of the model, a server for each")
    parser.add_argument("--memory-requests", type=int, default=0, help="further requests to measure memory over")
    arguments = parser.parse_args(words)
    model = ["--model", arguments.model] if arguments.model else []
    first = [*model, "--workers", str(arguments.workers[0])]
    photos = [photo_bytes(index) for index in range(8)]
    report: dict[str, object] = {**vars(arguments), "cores": os.cpu_count(), "load_average": os.getloadavg()[0]}
    loads = {}
    for workers in arguments.workers:
        with started(*model, "--workers", str(workers)) as (address, pid):
            loads[str(workers)] = load(address, pid, photos, arguments.requests, arguments.rounds, arguments.clients)
    report["load"] = loads
    if arguments.memory_requests:
        with started(*first) as (address, pid):
            tenth = max(1, arguments.memory_requests // 10)
            report["memory"] = load(address, pid, photos, tenth, 10, arguments.clients)
    with started(*first, "--queue", "2") as (address, _):
        report["full_queue"] = full_queue(address, photos, arguments.clients)
    print(json.dumps(report, indent=1))


def load(
    address: str, pid: int, photos: list[bytes], requests: int, rounds: int, clients: int
) -> dict[str, object]:
    """Rounds of requests, all clients at once."""
    memory, codes, latencies, seconds = [resident_mb(pid)], Counter(), [], 0.0
    for _ in range(rounds):
        start = time.perf_counter()
        answers = ask_all(address, photos, requests, clients)
        seconds += time.perf_counter() - start
        codes.update(code for code, _ in answers)
        latencies += [latency for _, latency in answers]
        memory.append(resident_mb(pid))
    latencies.sort()
    total = requests * rounds
    return {
        "answers": {str(code): count for code, count in codes.items()},
        "lost": codes[0] + total - codes.total(),
        "requests_per_second": round(total / seconds, 1),
        "latency": {f"p{p}": round(latencies[min(total - 1, total * p // 100)], 3) for p in (50, 95, 99)},
        "memory_mb": memory,
    }


def full_queue(address: str, photos: list[bytes], clients: int) -> dict[str, object]:
    """All clients at once, several times, where only two may wait."""
    answers = ask_all(address, photos, 6 * clients, clients)
    refused = [latency for code, latency in answers if code == 503]
    return {
        "answers": {str(code): count for code, count in Counter(code for code, _ in answers).items()},
        "refusal_seconds": {"median": round(sorted(refused)[len(refused) // 2], 4), "worst": round(max(refused), 4)}
        if refused
        else None,
    }


def ask_all(address: str, photos: list[bytes], count: int, clients: int) -> list[tuple[int, float]]:
    """Status and latency in seconds of each request; status 0 where there was no answer."""

    def ask(index: int) -> tuple[int, float]:
        start = time.perf_counter()
        try:
            answer = client.post(
                f"{address}v1/segment",
                files={"photo": ("scene.jpg", photos[index % len(photos)])},
                data={"vocabulary": VOCABULARIES[index % len(VOCABULARIES)], "formats": "json,coco,png"},
            )
            code = answer.status_code
        except httpx.HTTPError:
            code = 0
        return code, time.perf_counter() - start

    limits = httpx.Limits(max_connections=clients)
    with httpx.Client(timeout=120, limits=limits, trust_env=False) as client, ThreadPoolExecutor(clients) as pool:
        return list(pool.map(ask, range(count)))


@contextmanager
def started(*options: str) -> Iterator[tuple[str, int]]:
    """A server on a free port: its address and process."""
    command = [sys.executable, "-m", "partclipseg.apps.cli", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if found := re.search(r"open (http://\S+)", line):
                yield found[1], process.pid
                break
        else:
            raise SystemExit(f"the server did not start: {said}")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def photo_bytes(index: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(render_scene("test", index, 384).image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def resident_mb(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1024, 1)


if __name__ == "__main__":
    main()
