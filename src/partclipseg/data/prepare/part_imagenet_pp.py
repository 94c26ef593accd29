"""Put ImageNet's photos beside PartImageNet++'s annotations: ``images/SYNSET/PHOTO``, lists and annotations unchanged.

Li et al., *PartImageNet++ Dataset*, ECCV 2024. Only the 100 photos of each object that are annotated are taken.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from partclipseg.data.coco import read_coco
from partclipseg.data.datasets.part_imagenet_pp import CATEGORY_NAMES, DISCARDED, NAME, SYNSET_LIST
from partclipseg.data.prepare.photo_lists import PhotoJob
from partclipseg.data.prepare.recipe import LayoutRecipe, Outcome, PhotoMode, source_state
from partclipseg.data.prepare.source import find
from partclipseg.errors import PartCLIPSegError
from partclipseg.kept_files import KeptFiles


class PartImageNetPPJob(PhotoJob):
    """Job of one photo; the synset of its object is the folder in its key."""

    def source(self) -> str:
        """Return the state of the source, as in `PrepareJob.source`."""
        return source_state(self.photo, self.key.split("/")[0], *self.objects)


class PartImageNetPPRecipe(LayoutRecipe):
    """Recipe of PartImageNet++: see `LayoutRecipe`.

    Raises:
        PartCLIPSegError: there are no annotation files, or one is not COCO JSON.
    """

    name = NAME

    def __init__(self, folders: Sequence[Path], mode: PhotoMode = "copy") -> None:
        self._folders = folders
        self._mode: PhotoMode = mode
        self._annotations = {
            path.stem: path for path in find(folders, ".json") if path.parent.name == "json" and path.stem[:1] == "n"
        }
        if not self._annotations:
            raise PartCLIPSegError("there is no json/SYNSET.json: add the folder of PartImageNetPP to --source")

    def jobs(self) -> list[PartImageNetPPJob]:
        """Make one job for each annotated photo; raises `PartCLIPSegError` for one that is not in the source."""
        photos = {path.name.lower(): path for path in find(self._folders, ".jpeg", ".jpg")}
        jobs = []
        for number, (synset, file) in enumerate(sorted(self._annotations.items())):
            for entry in read_coco(file).photos:
                name = Path(entry.file_name or "").name
                if (photo := photos.get(name.lower())) is None:
                    raise PartCLIPSegError(
                        f"the photo {name} of {synset}.json is not in the source: add ImageNet's training photos to "
                        "--source"
                    )
                key, place = f"{synset}/{photo.stem}", f"images/{synset}/{photo.name}"
                jobs.append(PartImageNetPPJob(key, "json", photo, place, self._mode, objects=(number,)))
        return jobs

    def finish(self, lists: KeptFiles, outcomes: Sequence[Outcome]) -> None:
        """Copy the annotations, the inclusion lists and the lists of names and discarded photos."""
        for synset, path in self._annotations.items():
            _copy(path, lists, f"json/{synset}.json")
        for path in find(self._folders, ".txt", ".json"):
            if path.parent.name == "including" and path.stem in self._annotations:
                _copy(path, lists, f"including/{path.name}")
            elif path.name in (SYNSET_LIST, CATEGORY_NAMES, DISCARDED):
                _copy(path, lists, path.name)


def _copy(source: Path, lists: KeptFiles, name: str) -> None:
    with lists.write(name) as temporary:
        shutil.copyfile(source, temporary)
