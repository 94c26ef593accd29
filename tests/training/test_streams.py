"""Scenes in memory give the loader's batches, in the loader's order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from partclipseg.data.augment import Augmentation
from partclipseg.data.loader import Batch, StepSampler, build_loader
from partclipseg.data.sample import OUTSIDE, UNLABELLED
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.shapes.dataset import PartShapesDataset
from partclipseg.training.streams import Scenes, SceneStream
from partclipseg.vocabulary import Vocabulary


def stacked(dataset) -> Scenes:
    samples = [dataset[index] for index in range(len(dataset))]
    arrays = (np.stack([getattr(s, name) for s in samples]) for name in ("image", "part_labels", "object_labels"))
    return Scenes.from_arrays(*arrays, dataset.vocabulary)


def open_stream(scenes: Scenes, augmentation: Augmentation | None = None, **sampler: int) -> SceneStream:
    order = StepSampler(len(scenes), **{"batch_size": 4, "seed": 3, **sampler})
    return SceneStream(scenes, order, augmentation)


def same(first: Batch, second: Batch) -> bool:
    names = ("photos", "part_labels", "object_labels")
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in names)


def test_the_same_batches_as_the_loader(squares_dataset) -> None:
    stream = open_stream(stacked(squares_dataset))
    loader = build_loader(squares_dataset, batch_size=4, augmentation=None, seed=3, image_size=64)
    for _ in range(5):  # 20 records of 12: into the second epoch
        ours, theirs = next(stream), next(loader)
        assert torch.equal(ours.photos, theirs.photos / 255)
        assert torch.equal(ours.part_labels, theirs.part_labels)
        assert torch.equal(ours.object_labels, theirs.object_labels)
        assert ours.part_labels.dtype == torch.int64
        assert stream.state_dict() == loader.state_dict()


def test_continues_where_its_state_was_taken(squares_dataset) -> None:
    scenes, augmentation = stacked(squares_dataset), Augmentation(crop_edge=None)
    stream = open_stream(scenes, augmentation)
    for _ in range(4):
        next(stream)
    state = stream.state_dict()
    expected = [next(stream) for _ in range(3)]
    other = open_stream(scenes, augmentation)
    other.load_state_dict(state)
    assert all(same(next(other), batch) for batch in expected)


def test_processes_share_a_step(squares_dataset) -> None:
    scenes, augmentation = stacked(squares_dataset), Augmentation(crop_edge=None)
    whole = next(open_stream(scenes, augmentation))
    shares = [next(open_stream(scenes, augmentation, rank=rank, world_size=2)) for rank in range(2)]
    assert {key for share in shares for key in share.keys} == set(whole.keys)
    for rank, share in enumerate(shares):
        assert torch.equal(share.photos, whole.photos[rank::2])


def test_a_flip_moves_pixels_and_labels_together_and_exchanges_left_and_right() -> None:
    vocabulary = Vocabulary.from_dict({"car": ["left door", "right door", "left wheel"]})
    image = np.zeros((1, 2, 4, 3), np.uint8)
    image[0, :, 0] = 255
    parts = np.full((1, 2, 4), UNLABELLED)
    parts[0, :, 0], parts[0, :, 3] = 0, 2
    objects = np.array([[[0, UNLABELLED, OUTSIDE, 0]] * 2])
    scenes = Scenes.from_arrays(image, parts, objects, vocabulary)
    augmentation = Augmentation(flip=1, crop_edge=None, brightness=0, contrast=0, saturation=0)
    batch = next(open_stream(scenes, augmentation, batch_size=1))
    assert batch.photos[0, 0, 0].argmax() == 3
    # The left wheel has no right one in the vocabulary: no word for what is seen.
    assert batch.part_labels[0, 0].tolist() == [UNLABELLED, UNLABELLED, UNLABELLED, 1]
    assert batch.object_labels[0, 0].tolist() == [0, OUTSIDE, UNLABELLED, 0]


def test_colours_change_as_asked_and_labels_stay(squares_dataset) -> None:
    scenes = stacked(squares_dataset)
    plain = next(open_stream(scenes))
    for name in ("brightness", "contrast", "saturation"):
        amounts = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, name: 0.5}
        changed = next(open_stream(scenes, Augmentation(flip=0, crop_edge=None, **amounts)))
        assert torch.equal(changed.part_labels, plain.part_labels)
        differing = (changed.photos != plain.photos).flatten(1).any(1)
        assert differing.all()


def test_what_memory_cannot_do_is_refused(squares_dataset) -> None:
    scenes = stacked(squares_dataset)
    with pytest.raises(UsageError, match="not cropped or scaled"):
        open_stream(scenes, Augmentation())
    for change in ({"fit": "corner"}, {"hue": 20.0}, {"ssd": True}):
        with pytest.raises(UsageError, match="not cut, nor their hues changed"):
            open_stream(scenes, Augmentation(crop_edge=None, **change))
    stream = open_stream(scenes)
    with pytest.raises(PartCLIPSegError, match="started on 99 scenes and there are now 12"):
        stream.load_state_dict({"seed": 3, "epoch": 0, "position": 4, "size": 99})


def test_scenes_are_cropped_around_their_objects_as_the_loader_crops_them() -> None:
    scenes = PartShapesDataset.ahead("instances", 4, 48)
    stacked_scenes = Scenes.from_arrays(*scenes.arrays(), scenes.vocabulary, scenes.boxes())
    still = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    augmentation = Augmentation(object_crop=0.5, crop_edge=None, **still)
    ours = next(open_stream(stacked_scenes, augmentation))
    theirs = next(build_loader(scenes, batch_size=4, augmentation=augmentation, seed=3, image_size=48))
    whole = next(open_stream(stacked_scenes, Augmentation(crop_edge=None, **still)))
    assert torch.equal(ours.part_labels, theirs.part_labels)
    assert torch.equal(ours.object_labels, theirs.object_labels)
    # Pillow rounds to whole grey levels.
    assert (ours.photos - theirs.photos / 255).abs().mean() < 0.01
    changed = (ours.part_labels != whole.part_labels).flatten(1).any(1)
    assert changed.any()
    with pytest.raises(UsageError, match="object_crop needs the boxes of the objects"):
        open_stream(Scenes.from_arrays(*scenes.arrays(), scenes.vocabulary), augmentation)


def test_objects_outside_the_vocabulary_have_no_box() -> None:
    every, seen = (PartShapesDataset.ahead("test", 30, 32, words) for words in ("all", "seen"))
    assert (every.boxes()[..., 0] >= 0).sum() > (seen.boxes()[..., 0] >= 0).sum() > 0
    with pytest.raises(UsageError, match="rendered when asked for"):
        PartShapesDataset("test", 1, 32).boxes()
