"""What is made of the results once every photo has its line: one file for all photos in each format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import yaml

from partclipseg.apps.label.job import WRITTEN, BulkJob
from partclipseg.apps.label.people import Results, task_text
from partclipseg.apps.label.photos import Photo
from partclipseg.files import flush, is_disk_full, refusal, temporary_path
from partclipseg.inference.formats import coco_categories, coco_document, label_studio_config
from partclipseg.inference.palette import part_colours
from partclipseg.journal import Journal, json_text

COCO_FILE, JSONL_FILE = "annotations.coco.json", "labels.jsonl"


class Collections:
    """Files for all photos, in the output folder. One that a person changed is kept, and the new one lies beside it.

    Digests of what is written are on the disk before it is, as those of the photos' own files are.
    """

    def __init__(self, output: Path, overwrite: bool) -> None:
        """With `overwrite` files of people are replaced. Raises `PartCLIPSegError` if the digests are damaged."""
        self.output = output
        self.overwrite = overwrite
        self.kept: list[tuple[str, str | None]] = []
        """Files that a person made or changed, and the new file beside each, if there is anything new."""
        self.failed: list[tuple[str, str]] = []
        """Files that could not be written, and why."""
        self._journal = Journal(
            output / WRITTEN / "collections.jsonl",
            "delete it; files for all photos whose content would change are then kept, as those of a person",
        )
        self._known: dict[str, list[str]] = {}
        for entry in self._journal.scan():
            self._known.setdefault(str(entry.get("file")), []).append(str(entry.get("digest")))

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """Yield a temporary path to write the file `name` to, which is relative to the output folder."""
        path = self.output / name
        temporary = temporary_path(self.output / path.name)  # the file's own folder may be missing
        try:
            yield temporary
            self._place(name, temporary)
        except OSError as error:
            if is_disk_full(error):
                raise
            if error.filename == str(temporary):
                error.filename = str(path)
            self.failed.append((name, refusal(error, path)))
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def text(self, name: str, text: str) -> None:
        """Write UTF-8 text to the file `name`."""
        with self.write(name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def finish(self) -> None:
        """Keep the last digest of each file alone."""
        self._journal.rewrite({"file": name, "digest": digests[-1]} for name, digests in self._known.items())

    def _place(self, name: str, temporary: Path) -> None:
        written = _file_digest(temporary)
        target = name
        for candidate in _candidates(name):
            target = candidate
            known = self._known.get(candidate, [])
            try:
                present = _file_digest(self.output / candidate)
            except (FileNotFoundError, NotADirectoryError):
                break
            if self.overwrite or present == written or present in known:
                break
            if known and written == known[-1]:  # the person had just this, and changed it
                self.kept.append((name, None))
                return
        if target != name:
            self.kept.append((name, target))
        self._known.setdefault(target, []).append(written)
        self._journal.path.parent.mkdir(parents=True, exist_ok=True)
        self._journal.append([{"file": target, "digest": written}])
        flush(temporary)
        (self.output / target).parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(self.output / target)
        flush((self.output / target).parent)


def _candidates(name: str) -> Iterator[str]:
    """``a.json``, ``a.new.json``, ``a.new-2.json`` and so on."""
    path = Path(name)
    yield name
    yield path.with_name(f"{path.stem}.new{path.suffix}").as_posix()
    number = 2
    while True:
        yield path.with_name(f"{path.stem}.new-{number}{path.suffix}").as_posix()
        number += 1


def _file_digest(path: Path) -> str:
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_collections(job: BulkJob, photos: list[Photo], results: Results, collections: Collections) -> None:
    """Write the files of all formats; the same results give the same bytes."""
    with collections.write("vocabulary.json") as temporary:
        job.vocabulary.save(temporary)
    writers: dict[str, Callable[..., None]] = {
        "jsonl": _write_jsonl,
        "coco": _write_coco,
        "yolo": _write_yolo,
        "label-studio": _write_label_studio,
    }
    for name, write in writers.items():
        if name in job.formats:
            write(job, photos, results, collections)


def _write_jsonl(job: BulkJob, photos: list[Photo], results: Results, collections: Collections) -> None:
    with collections.write(JSONL_FILE) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in results:
            if record.pop("status") == "done":
                file.write(json_text(record) + "\n")


def _write_coco(job: BulkJob, photos: list[Photo], results: Results, collections: Collections) -> None:
    collections.text(COCO_FILE, json_text(_coco(job, results)) + "\n")


def _coco(job: BulkJob, results: Results) -> dict[str, Any]:
    """A photo's id is its line in the manifest, so that failed photos leave a gap."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(results, start=1):
        if record["status"] != "done":
            continue
        image = {"id": number, "file_name": record["photo"], "width": record["width"], "height": record["height"]}
        images.append(image)
        for segment in record["segments"]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": segment["index"] + 1,
                    "segmentation": segment["rle"],
                    "area": segment["area"],
                    "bbox": segment["box"],
                    "iscrowd": 0,
                    "score": segment["score"],
                }
            )
    return coco_document(images, annotations, coco_categories(job.vocabulary))


def _write_yolo(job: BulkJob, photos: list[Photo], results: Results, collections: Collections) -> None:
    # A list and not the folder: Ultralytics follows the link of a folder, and would look for labels where it leads.
    lines = [f"./images/{photo.path}\n" for photo in photos if results.is_done(photo) and _yolo_finds(photo)]
    collections.text("yolo/train.txt", "".join(lines))
    document = {"train": "train.txt", "val": "train.txt", "names": dict(enumerate(job.vocabulary.names))}
    collections.text("yolo/data.yaml", yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    images = job.output / "yolo/images"
    if not images.is_symlink():
        with suppress(OSError):  # where links are not allowed, the photos have to be copied there
            images.symlink_to(job.folder.resolve(), target_is_directory=True)


def _yolo_finds(photo: Photo) -> bool:
    """Whether Ultralytics can read the name from a list, and its rule leads to the photo's own label file.

    The rule: the last ``/images/`` of the path becomes ``/labels/``, the last suffix ``.txt``.
    """
    if photo.path.encode(errors="ignore").decode().splitlines() != [photo.path]:
        return False
    labels = "/labels/".join(f"/images/{photo.path}".rsplit("/images/", 1))
    return f"{labels.rpartition('.')[0]}.txt" == f"/labels/{photo.stem}.txt"


def _write_label_studio(job: BulkJob, photos: list[Photo], results: Results, collections: Collections) -> None:
    collections.text("label_studio.xml", label_studio_config(job.vocabulary, part_colours(job.vocabulary)))
    by_path = {photo.path: photo for photo in photos}
    separator = "[\n"
    with collections.write("label_studio.json") as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in results:
            if record["status"] == "done":
                file.write(separator + task_text(job, by_path[record["photo"]], record, results))
                separator = ",\n"
        file.write("\n]\n" if separator == ",\n" else "[]\n")
