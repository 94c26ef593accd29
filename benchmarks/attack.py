"""Does ``partclipseg serve`` go on answering while a client tries to stop it? A bounded attack on a server of its own.

    python benchmarks/attack.py                      # about two minutes; prints a table
    python benchmarks/attack.py --output attack.json # writes the figures as JSON, too

Starts a server of the built-in model on a free loopback port, then: good and hostile requests mixed, each answered as
it should be; connections that send half a request and no more, while others ask; large JSON bodies, while others ask.
For each it prints how long ``/healthz`` took at worst meanwhile, and the greatest resident memory of the server.
"""

from __future__ import annotations

import argparse
import base64
import json
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from serve import VOCABULARIES, photo_bytes, resident_mb, started

HALF_REQUEST = b"GET /v1/models HTTP/1.1\r\nHost: local"
DEEP = "[" * 500 + "]" * 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=600, help="mixed requests, half of them hostile")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--connections", type=int, default=1100, help="that send half a request")
    parser.add_argument("--seconds", type=float, default=15, help="how long those are held open")
    parser.add_argument("--megabytes", type=float, default=2, help="size of a hostile JSON body")
    parser.add_argument("--model", help="directory or hub name; left out: the built-in model")
    parser.add_argument("--output", type=Path, help="file to write the figures to, as JSON; must not exist")
    arguments = parser.parse_args()
    if arguments.output and arguments.output.exists():
        parser.error(f"{arguments.output} exists: name another file")
    photo = photo_bytes(0)
    report: list[dict[str, Any]] = []
    # 1,024 open files, as systems give a process that asks for no more: a server that takes every connection is full.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
    with started(*(["--model", arguments.model] if arguments.model else [])) as (address, pid):
        wanted = arguments.connections + 200
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, wanted), hard), hard))
        with watched(address, pid) as seen:
            outcome = mixed(address, photo, arguments)
        report.append({"attack": f"{arguments.requests} mixed requests", "outcome": outcome, **seen})
        with watched(address, pid) as seen:
            outcome = half_requests(address, arguments)
        report.append({"attack": f"{arguments.connections} half requests", "outcome": outcome, **seen})
        for name, body in json_bodies(photo, round(arguments.megabytes * 1e6)).items():
            with watched(address, pid) as seen:
                code, seconds, sentence = send_json(address, body)
            outcome = f"{code} in {seconds:.2f} s: {sentence}"
            report.append({"attack": f"{len(body) / 1e6:.1f} MB of {name}", "outcome": outcome, **seen})
    show(report)
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def mixed(address: str, photo: bytes, arguments: argparse.Namespace) -> str:
    """Good and hostile requests in turn; how many got the status that they should get."""
    text = base64.b64encode(photo).decode()
    good = {"photo": text, "vocabulary": VOCABULARIES[0]}
    url_safe = base64.urlsafe_b64encode(photo).decode().rstrip("=")
    hostile: list[tuple[bytes, int]] = [
        (b"{", 400),
        (b"[]", 422),
        (b'{"photo": ' + b"[" * 3_000, 400),
        (json.dumps({**good, "photo": "%%%"}).encode(), 422),
        (json.dumps({**good, "vocabulary": [1] * 200_000}).encode(), 413),
        (json.dumps({**good, "vocabulary": [1] * 500}).encode(), 422),
        (json.dumps({**good, "vocabulary": {"a": ["b" * 1_000]}}).encode(), 422),
        (json.dumps({**good, "vocabulary": {"a": ["b" * 1_000_000]}}).encode(), 413),
        (json.dumps({**good, "vocabulary": {"a": [f"p{i}" for i in range(501)]}}).encode(), 422),
        (json.dumps({**good, "x" * 10_000: 1}).encode(), 422),
    ]
    friendly = [json.dumps({**good, "vocabulary": words, "photo": text}).encode() for words in VOCABULARIES]
    friendly.append(json.dumps({**good, "photo": url_safe}).encode())
    requests = [
        (friendly[number // 2 % len(friendly)], 200) if number % 2 else hostile[number // 2 % len(hostile)]
        for number in range(arguments.requests)
    ]
    right: Counter[bool] = Counter()
    with ThreadPoolExecutor(arguments.clients) as pool:
        for (_, expected), (code, _, _) in zip(
            requests, pool.map(lambda request: send_json(address, request[0]), requests), strict=True
        ):
            right[code == expected] += 1
    return f"{right[True]} of {arguments.requests} answered as they should be"


def half_requests(address: str, arguments: argparse.Namespace) -> str:
    """Open connections, send half a request on each, and hold them for a while."""
    port = httpx.URL(address).port
    with ExitStack() as stack:
        connections = []
        for _ in range(arguments.connections):
            with suppress(OSError):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=2))
                connection.sendall(HALF_REQUEST)
                connections.append(connection)
        time.sleep(arguments.seconds)
        alive = sum(map(_is_open, connections))
    return f"{len(connections)} opened, {alive} of them still open after {arguments.seconds:g} s"


def json_bodies(photo: bytes, size: int) -> dict[str, bytes]:
    """Bodies of about `size` bytes, each of another kind."""
    words = {
        "numbers": "[" + "1," * (size // 2) + "1]",
        "lists of lists": "[" + '["a"],' * (size // 6) + '"a"]',
        "deep nesting": "[" + f"{DEEP}," * (size // 1_001) + '"a"]',
        "one long word": json.dumps({"a": ["b" * size]}),
        "words": json.dumps({"a": [f"{i:x}" for i in range(size // 9)]}),
    }
    text = base64.b64encode(photo).decode()
    return {name: f'{{"photo":"{text}","vocabulary":{value}}}'.encode() for name, value in words.items()}


def send_json(address: str, body: bytes) -> tuple[int, float, str]:
    """Status, seconds and sentence of the answer; status 0 where there was none."""
    start = time.perf_counter()
    headers = {"Content-Type": "application/json"}
    try:
        answer = httpx.post(f"{address}v1/segment", content=body, headers=headers, timeout=120, trust_env=False)
        code, sentence = answer.status_code, str(answer.json().get("detail", ""))[:80]
    except httpx.HTTPError as error:
        code, sentence = 0, type(error).__name__
    return code, time.perf_counter() - start, sentence


@contextmanager
def watched(address: str, pid: int) -> Iterator[dict[str, Any]]:
    """Ask for ``/healthz`` on a new connection every 50 ms; gives the worst latency and the greatest memory."""
    latencies: list[float] = []
    seen: dict[str, Any] = {"memory_mb": resident_mb(pid), "lost": 0}
    done = threading.Event()

    port = httpx.URL(address).port

    def watch() -> None:
        while not done.wait(0.05):
            start = time.perf_counter()
            seen["lost"] += not _is_healthy(port)
            latencies.append(time.perf_counter() - start)
            seen["memory_mb"] = max(seen["memory_mb"], resident_mb(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        time.sleep(0.2)
        yield seen
        time.sleep(0.2)
    finally:
        done.set()
        thread.join()
        latencies.sort()
        seen["healthz_median_s"] = round(latencies[len(latencies) // 2], 3)
        seen["healthz_worst_s"] = round(latencies[-1], 3)


def show(report: list[dict[str, Any]]) -> None:
    """Print the figures as a table."""
    table = Table("attack", "outcome", "healthz, median", "worst", "lost", "peak memory")
    for row in report:
        median, worst = f"{row['healthz_median_s']:.3f} s", f"{row['healthz_worst_s']:.3f} s"
        table.add_row(row["attack"], row["outcome"], median, worst, str(row["lost"]), f"{row['memory_mb']:.0f} MB")
    Console(width=150).print(table)


def _is_healthy(port: int | None) -> bool:
    """Ask on a plain socket: to make an HTTP client would take longer than the answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.recv(200).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


if __name__ == "__main__":
    main()
