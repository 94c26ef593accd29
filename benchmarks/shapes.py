"""How fast PartShapes renders.

    python benchmarks/shapes.py                 # about a minute on two cores
    python benchmarks/shapes.py --scenes 2000

Prints JSON: scenes per second at 64, 128 and 256 pixels, in one process (processor time) and with one process a
core (wall-clock time, starting the processes included).
"""

from __future__ import annotations

import argparse
import json
import platform
import time

from partclipseg.machine import usable_cores
from partclipseg.shapes.cache import render_split
from partclipseg.shapes.renderer import render_scene


def one_core(size: int, scenes: int) -> float:
    """Scenes per second of processor time."""
    for index in range(20):
        render_scene("base", index, size)
    start = time.process_time()
    for index in range(scenes):
        render_scene("base", index, size)
    return scenes / (time.process_time() - start)


def all_cores(size: int, scenes: int) -> float:
    """Scenes per second of wall-clock time, into memory."""
    start = time.perf_counter()
    render_split("base", scenes, size)
    return scenes / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=1000, help="scenes per core and measurement")
    scenes = parser.parse_args().scenes
    cores = usable_cores()
    figures = {
        str(size): {
            "one_core": round(one_core(size, scenes), 1),
            "all_cores": round(all_cores(size, scenes * cores), 1),
        }
        for size in (64, 128, 256)
    }
    print(
        json.dumps(
            {
                "scenes_per_second": figures,
                "cores": cores,
                "machine": platform.processor() or platform.machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
