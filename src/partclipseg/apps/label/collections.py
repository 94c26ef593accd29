"""What is made of the manifest once every photo has its line: one file for all photos in each format."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from partclipseg.apps.label.job import BulkJob
from partclipseg.apps.label.manifest import Manifest
from partclipseg.apps.label.photos import Photo
from partclipseg.files import whole_file, write_text
from partclipseg.inference.formats import coco_categories, coco_document, label_studio_config
from partclipseg.inference.palette import part_colours
from partclipseg.journal import json_text

COCO_FILE, JSONL_FILE = "annotations.coco.json", "labels.jsonl"


def write_collections(job: BulkJob, photos: list[Photo], manifest: Manifest) -> None:
    """Write the files of all formats; the same manifest gives the same bytes."""
    job.vocabulary.save(job.output / "vocabulary.json")
    if "jsonl" in job.formats:
        _write_jsonl(job.output / JSONL_FILE, manifest)
    if "coco" in job.formats:
        write_text(job.output / COCO_FILE, json_text(_coco(job, manifest)) + "\n")
    if "yolo" in job.formats:
        _write_yolo(job, photos, manifest)
    if "label-studio" in job.formats:
        _write_label_studio(job, photos, manifest)


def _write_jsonl(path: Path, manifest: Manifest) -> None:
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in manifest:
            if record.pop("status") == "done":
                file.write(json_text(record) + "\n")


def _coco(job: BulkJob, manifest: Manifest) -> dict[str, Any]:
    """A photo's id is its line in the manifest, so that failed photos leave a gap."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(manifest, start=1):
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


def _write_yolo(job: BulkJob, photos: list[Photo], manifest: Manifest) -> None:
    folder = job.output / "yolo"
    # A list and not the folder: Ultralytics follows the link of a folder, and would look for labels where it leads.
    lines = [f"./images/{photo.path}\n" for photo in photos if manifest.is_done(photo) and _yolo_finds(photo)]
    write_text(folder / "train.txt", "".join(lines))
    document = {"train": "train.txt", "val": "train.txt", "names": dict(enumerate(job.vocabulary.names))}
    write_text(folder / "data.yaml", yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    images = folder / "images"
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


def _write_label_studio(job: BulkJob, photos: list[Photo], manifest: Manifest) -> None:
    write_text(job.output / "label_studio.xml", label_studio_config(job.vocabulary, part_colours(job.vocabulary)))
    separator = "[\n"
    with whole_file(job.output / "label_studio.json") as temporary, temporary.open("w", encoding="utf-8") as file:
        for photo in photos:
            if manifest.is_done(photo):
                task = job.own_files(photo)["label-studio"].read_text(encoding="utf-8")
                file.write(separator + task.rstrip())
                separator = ",\n"
        file.write("\n]\n" if separator == ",\n" else "[]\n")
