"""Render scenes ahead in several processes, into memory or a reusable folder.

Every worker is an interpreter of its own that runs this module: nothing is inherited from the calling process,
which may hold CUDA, threads or a main module that cannot be imported twice.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import refusal, whole_directory
from partclipseg.machine import usable_cores
from partclipseg.shapes.paint import COLOURS
from partclipseg.shapes.renderer import render_scene
from partclipseg.shapes.scene import MAX_MEMBERS, POSITIONS, SIZES, Scene, SceneObject, SceneSplit
from partclipseg.shapes.world import WORLD_VERSION, partshapes_world

_CHUNK = 64
_COLOUR_WORDS = tuple(COLOURS)
_DESCRIPTION = "scenes.json"
_NAMES = ("images", "parts", "objects", "instances", "members")


@dataclass(frozen=True)
class SceneArrays:
    """The first scenes of a split as arrays, in memory or mapped from files."""

    images: np.ndarray
    """uint8 `[N, S, S, 3]`, RGB."""
    parts: np.ndarray
    """int16 `[N, S, S]`: index into the world's object-parts, −1 for none."""
    objects: np.ndarray
    """int8 `[N, S, S]`: index into the world's objects, −1 for none."""
    instances: np.ndarray
    """int8 `[N, S, S]`: place among the scene's members, −1 for none."""
    members: np.ndarray
    """int16 `[N, 4, 8]`: of each member object, colour, size, position and box as numbers; −1 where there is none."""
    split: SceneSplit

    @property
    def size(self) -> int:
        """Side of the pictures in pixels."""
        return self.images.shape[1]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Scene:
        """Return the scene as `render_scene` does; raises `IndexError` past the end."""
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        return Scene(
            image=np.asarray(self.images[index]),
            parts=np.asarray(self.parts[index]),
            objects=np.asarray(self.objects[index]),
            instances=np.asarray(self.instances[index]),
            members=_decode(self.members[index]),
            key=f"{self.split}/{index}",
        )

    def __iter__(self) -> Iterator[Scene]:
        return (self[index] for index in range(len(self)))


def render_split(
    split: SceneSplit,
    count: int,
    size: int = 128,
    directory: str | Path | None = None,
    workers: int | None = None,
) -> SceneArrays:
    """Render the first ``count`` scenes of a split.

    Args:
        split: see `partclipseg.shapes.renderer`.
        count: number of scenes, at least 1.
        size: side of the square pictures in pixels.
        directory: keep the arrays in a folder inside this one and map them; found there already, they are used as they
            are. None holds them in memory, after a temporary folder.
        workers: processes; the number of usable cores by default, 1 to render in this process.

    Raises:
        UsageError: for a wrong split, count or size.
        PartCLIPSegError: where the folder holds something else or cannot be written, or a worker ends early.
    """
    if count < 1:
        raise UsageError(f"cannot render {count} scenes: ask for at least 1")
    render_scene(split, 0, size)  # refuses a wrong split or size before any process starts
    workers = usable_cores() if workers is None else workers
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="partshapes-") as folder:
            _fill(Path(folder), split, count, size, workers)
            return SceneArrays(
                **{name: np.load(Path(folder) / f"{name}.npy") for name in _NAMES}, split=split
            )

    folder = Path(directory) / f"{split}-{count}x{size}-v{WORLD_VERSION}"
    if not folder.exists():
        _write(folder, split, count, size, workers)
    return _open(folder, split, count, size)


def _shapes(count: int, size: int) -> dict[str, tuple[tuple[int, ...], type]]:
    return {
        "images": ((count, size, size, 3), np.uint8),
        "parts": ((count, size, size), np.int16),
        "objects": ((count, size, size), np.int8),
        "instances": ((count, size, size), np.int8),
        "members": ((count, MAX_MEMBERS, 8), np.int16),
    }


def _description(split: SceneSplit, count: int, size: int) -> dict[str, str | int]:
    return {"split": split, "count": count, "size": size, "world_version": WORLD_VERSION}


def _write(folder: Path, split: SceneSplit, count: int, size: int, workers: int) -> None:
    try:
        # If another process was faster, its scenes are the same.
        with suppress(UsageError), whole_directory(folder, new=True) as unfinished:
            _fill(unfinished, split, count, size, workers)
            (unfinished / _DESCRIPTION).write_text(json.dumps(_description(split, count, size)), encoding="utf-8")
    except OSError as error:
        raise PartCLIPSegError(f"the rendered scenes are not kept: {refusal(error, folder)}") from None


def _open(folder: Path, split: SceneSplit, count: int, size: int) -> SceneArrays:
    try:
        description = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _NAMES}
    except (OSError, ValueError) as error:
        raise PartCLIPSegError(
            f"{folder} holds no complete scenes ({error}): delete it to render anew"
        ) from None
    expected = {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in _shapes(count, size).items()}
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    if description != _description(split, count, size) or found != expected:
        raise PartCLIPSegError(f"{folder} holds other scenes than its name says: delete it to render anew")
    return SceneArrays(**arrays, split=split)


def _fill(folder: Path, split: SceneSplit, count: int, size: int, workers: int) -> None:
    """Render into the array files of a folder."""
    for name, (shape, dtype) in _shapes(count, size).items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape).flush()
    workers = min(workers, -(-count // _CHUNK))
    if workers <= 1:
        _render_share(folder, split, 0, 1)
        return
    command = [sys.executable, "-m", __name__, str(folder), split]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(workers)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(workers)
    ]
    try:
        for process in processes:
            _, complaint = process.communicate()
            if process.returncode:
                reason = (complaint.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
                raise PartCLIPSegError(f"a process that renders scenes ended early: {reason}")
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _render_share(folder: Path, split: SceneSplit, rank: int, workers: int) -> None:
    """Render every ``workers``-th chunk into the array files."""
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in _NAMES}
    count, size = arrays["images"].shape[:2]
    for start in range(rank * _CHUNK, count, workers * _CHUNK):
        for index in range(start, min(start + _CHUNK, count)):
            scene = render_scene(split, index, size)
            arrays["images"][index] = scene.image
            arrays["parts"][index] = scene.parts
            arrays["objects"][index] = scene.objects
            arrays["instances"][index] = scene.instances
            arrays["members"][index] = _encode(scene.members)
    for array in arrays.values():
        array.flush()


def _encode(members: tuple[SceneObject, ...]) -> np.ndarray:
    rows = np.full((MAX_MEMBERS, 8), -1, dtype=np.int16)
    label = partshapes_world().label
    for row, member in zip(rows, members, strict=False):
        words = (
            label[member.object],
            _COLOUR_WORDS.index(member.colour),
            SIZES.index(member.size),
            POSITIONS.index(member.position),
        )
        row[:] = (*words, *member.box)
    return rows


def _decode(rows: np.ndarray) -> tuple[SceneObject, ...]:
    objects = partshapes_world().vocabulary.objects
    return tuple(
        SceneObject(
            objects[word],
            (left, top, right, bottom),
            _COLOUR_WORDS[colour],
            SIZES[size],
            POSITIONS[position],
        )
        for word, colour, size, position, left, top, right, bottom in rows.tolist()
        if word >= 0
    )


if __name__ == "__main__":
    _render_share(Path(sys.argv[1]), cast(SceneSplit, sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
