"""PartShapes as a data set of samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from partclipseg.data.sample import PartSample
from partclipseg.errors import UsageError
from partclipseg.shapes.cache import SceneArrays, render_split
from partclipseg.shapes.labels import LabelTable, WordSet, choose_vocabulary
from partclipseg.shapes.renderer import render_scene
from partclipseg.shapes.scene import Scene, SceneSplit
from partclipseg.shapes.world import WORLD_VERSION, partshapes_world


class PartShapesDataset:
    """The first ``length`` scenes of a split, rendered when asked for, or taken from arrays rendered ahead."""

    def __init__(
        self,
        split: SceneSplit,
        length: int,
        size: int = 128,
        vocabulary: WordSet = "all",
        scenes: SceneArrays | None = None,
    ) -> None:
        """Make the data set.

        Args:
            split: see `partclipseg.shapes.renderer`.
            length: number of scenes, at least 1.
            size: side of the square pictures in pixels.
            vocabulary: "all", or "seen" to learn from: pixels of unseen objects are then `OUTSIDE` in the object
                labels and `UNLABELLED` in the part labels.
            scenes: what `render_split` gave for the same split and size, with at least ``length`` scenes.

        Raises:
            UsageError: for a length below 1, an unknown vocabulary, or scenes that do not fit.
        """
        if length < 1:
            raise UsageError(f"a data set of {length} scenes: ask for at least 1")
        if scenes is not None and (scenes.split != split or scenes.size != size or len(scenes) < length):
            raise UsageError(
                f"the scenes rendered ahead are {len(scenes)} of {scenes.split!r} at {scenes.size} pixels, "
                f"not {length} of {split!r} at {size}: render those"
            )
        world = partshapes_world()
        self.split: SceneSplit = split
        self.size = size
        self.vocabulary = choose_vocabulary(vocabulary, world.vocabulary, world.seen_vocabulary)
        self._length = length
        self._scenes = scenes
        self._table = LabelTable(world.vocabulary, self.vocabulary)

    @classmethod
    def ahead(
        cls, split: SceneSplit, length: int, size: int, vocabulary: WordSet = "all", directory: str | Path | None = None
    ) -> PartShapesDataset:
        """Render all scenes now. `directory` keeps them for the next run: see `render_split`."""
        return cls(split, length, size, vocabulary, render_split(split, length, size, directory))

    @cached_property
    def seen(self) -> tuple[int, ...]:
        """Indices into `vocabulary.object_parts` of the seen classes."""
        pairs = set(partshapes_world().seen_vocabulary.object_parts)
        return tuple(index for index, pair in enumerate(self.vocabulary.object_parts) if pair in pairs)

    @property
    def digest(self) -> Mapping[str, str]:
        """The version of the world that the scenes are rendered from, to compare with that of saved work."""
        return {"scenes": str(WORLD_VERSION)}

    def keys(self) -> tuple[str, ...]:
        """Return the key of every scene, ``split/index``, without rendering any."""
        return tuple(f"{self.split}/{index}" for index in range(self._length))

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return all scenes that were rendered ahead, in the indices of the vocabulary.

        Photos uint8 `[N, S, S, 3]`, part labels and object labels int32 `[N, S, S]`. Raises `UsageError` if they were
        not rendered ahead.
        """
        scenes, length = self._ahead(), self._length
        return (
            scenes.images[:length],
            self._table.parts(scenes.parts[:length]),
            self._table.objects(scenes.objects[:length]),
        )

    def boxes(self) -> np.ndarray:
        """Return boxes of the objects of the vocabulary in scenes rendered ahead, int32 `[N, M, 4]`, -1 for none.

        Left, top, right, bottom. Raises `UsageError` as `arrays` does.
        """
        members = self._ahead().members[: self._length].astype(np.int32)
        known = self._table.objects(members[..., 0]) >= 0
        return np.where(known[..., None], members[..., 4:], np.int32(-1))

    def _ahead(self) -> SceneArrays:
        if self._scenes is None:
            raise UsageError("these scenes are rendered when asked for: make them with PartShapesDataset.ahead")
        return self._scenes

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> PartSample:
        scene = self.scene(index)
        return PartSample(
            scene.image,
            self._table.parts(scene.parts),
            self._table.objects(scene.objects),
            scene.key,
            scene.instances.astype(np.int32),
        )

    def __iter__(self) -> Iterator[PartSample]:
        return (self[index] for index in range(self._length))

    def scene(self, index: int) -> Scene:
        """Return the scene behind a sample, in the labels of the world; raises `IndexError` past the end."""
        if not 0 <= index < self._length:
            raise IndexError(f"scene {index} of {self._length}")
        if self._scenes is not None:
            return self._scenes[index]
        return render_scene(self.split, index, self.size)
