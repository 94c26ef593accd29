"""Parity with OV-PARTS' own ZSSeg+ (R50, CPTCoOp; small widths, float32, CPU): every stage of its inference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file as load_tensors
from torch.nn import functional as F

from partclipseg.models.interface import Words
from partclipseg.models.registry import load_file
from partclipseg.models.zsseg.model import ZSSegModel
from partclipseg.models.zsseg.regions import class_scores, crop_box, patch_features
from partclipseg.vocabulary import Vocabulary

SEPARATOR = 2
"""Token between object and part; the golden's cut vocabulary has no comma."""


class Golden(NamedTuple):
    meta: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    model: ZSSegModel
    words: Words


def golden_config(meta: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Values of the golden's configuration, as `meta` writes it."""
    clip = meta["clip"]
    text = {
        "vocab_size": clip["vocab_size"],
        "hidden_size": clip["transformer_width"],
        "intermediate_size": 4 * clip["transformer_width"],
        "num_attention_heads": clip["transformer_heads"],
        "num_hidden_layers": clip["transformer_layers"],
        "max_position_embeddings": clip["context_length"],
        "bos_token_id": clip["vocab_size"] - 2,
        "eos_token_id": clip["vocab_size"] - 1,
        "pad_token_id": 0,
    }
    vision = {
        "hidden_size": clip["vision_width"],
        "intermediate_size": 4 * clip["vision_width"],
        "num_attention_heads": clip["vision_width"] // 64,
        "num_hidden_layers": clip["vision_layers"],
        "image_size": clip["image_resolution"],
        "patch_size": clip["vision_patch_size"],
    }
    values = {
        "clip_config": {"text_config": text, "vision_config": vision, "projection_dim": clip["embed_dim"]},
        "backbone_config": {"embedding_size": 4, "hidden_sizes": [16, 32, 64, 128]},
        "feature_size": 32,
        "hidden_size": 32,
        "num_heads": meta["nheads"],
        "num_layers": meta["dec_layers"],
        "feed_forward_size": 64,
        "num_queries": 12,
        "class_hidden_size": 40,
        "shortest_edge": 96,
        "separator_id": SEPARATOR,
        "dot_id": 1,
        "image_mean": meta["pixel_mean"],
        "image_std": meta["pixel_std"],
    }
    return {**values, **changes}


def ids_of(meta: dict[str, Any], vocabulary: Vocabulary) -> torch.Tensor:
    """Token ids int64 `[K, L]` of the prompts, by the golden's list of words."""
    start, end, ids = meta["clip"]["vocab_size"] - 2, meta["clip"]["vocab_size"] - 1, meta["word_ids"]
    rows = [[start, *ids[pair.object], SEPARATOR, *ids[pair.part], end] for pair in vocabulary.object_parts]
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])


@pytest.fixture(scope="module")
def folder() -> Path:
    path = Path(__file__).resolve().parents[4] / "shared/reference/golden/zsseg/dev"
    if not path.is_dir():
        pytest.skip("needs the shared golden tensors beside the repository")
    return path


@pytest.fixture(scope="module")
def golden(folder: Path) -> Golden:
    meta, tensors = json.loads((folder / "meta.json").read_text()), load_tensors(folder / "tensors.safetensors")
    model = load_file(folder / "checkpoint.pth", golden_config(meta))
    vocabulary = Vocabulary.from_names(meta["test_vocabulary"])
    with torch.no_grad():
        embeddings = model.encode_text(ids_of(meta, vocabulary), torch.ones(1))
    return Golden(meta, tensors, model, Words.of(vocabulary, embeddings))


def records(golden: Golden) -> list[tuple[str, dict[str, Any]]]:
    kept = [record for record in golden.meta["records"] if not record["skipped"]]
    return [(f"record{index}.", record) for index, record in enumerate(kept)]


def inputs_of(golden: Golden, name: str, at_network_size: bool = True) -> dict[str, torch.Tensor]:
    """The inputs of a record: its photo at the size of the network, or at its own, and its object's mask."""
    mask = golden.tensors[f"{name}object_mask"]
    if at_network_size:
        inputs = golden.model.prepare(golden.tensors[f"{name}image"][None])
    else:
        inputs = golden.model.prepare([golden.tensors[f"{name}photo"].numpy()])
    return golden.model.with_object_masks(inputs, [mask])


def test_composed_prompts(golden: Golden) -> None:
    ours = torch.cat([golden.words.embeddings, F.normalize(golden.model.background, dim=-1)])
    torch.testing.assert_close(ours, golden.tensors["text_features"], atol=1e-5, rtol=0)
    seen = Vocabulary.from_names(golden.meta["train_vocabulary"])
    with torch.no_grad():
        embeddings = golden.model.encode_text(ids_of(golden.meta, seen), torch.ones(1))
    torch.testing.assert_close(embeddings, golden.tensors["train.text_features"][:-1], atol=1e-5, rtol=0)


def test_photos_are_resized_as_released(golden: Golden) -> None:
    for name, _ in records(golden):
        inputs = inputs_of(golden, name, at_network_size=False)
        height, width = inputs["photo_sizes"][0].tolist()
        ours = inputs["pixel_values"][0, :, :height, :width]
        torch.testing.assert_close(ours, golden.tensors[f"{name}image"].float(), atol=0, rtol=0)


def test_both_stages(golden: Golden) -> None:
    tensors, model = golden.tensors, golden.model
    for name, _ in records(golden):
        inputs = inputs_of(golden, name)
        with torch.no_grad():
            found = model.stages(inputs, golden.words)
        masks, classes, regions = found.mask_logits[0], found.class_logits[0], found.region_logits[0]
        torch.testing.assert_close(masks, tensors[f"{name}mask_logits"][0], atol=5e-4, rtol=0)
        torch.testing.assert_close(classes, tensors[f"{name}class_logits"], atol=5e-3, rtol=0)
        size = tuple(inputs["photo_sizes"][0].tolist())
        labels = class_scores(masks, classes, size)[:-1].argmax(0)
        assert int((labels != tensors[f"{name}label_map"].long()).sum()) <= 3  # two all but equal words
        valid = tensors[f"{name}valid"]
        assert torch.equal(regions.any(1), valid)
        expected = 100 * tensors[f"{name}image_features"] @ golden.words.embeddings.T
        torch.testing.assert_close(regions[valid], expected, atol=1e-3, rtol=0)  # 100 · 1e-5


def test_patch_features(golden: Golden) -> None:
    inputs, model = inputs_of(golden, "record0."), golden.model
    height, width = inputs["photo_sizes"][0].tolist()
    top, bottom, left, right = crop_box(inputs["object_masks"][0, :height, :width], 1.2)
    crop = inputs["pixel_values"][0, :, top:bottom, left:right]
    with torch.no_grad():
        features = patch_features(model.config, model.clip, crop)  # the class token of the golden comes first
    expected = F.normalize(golden.tensors["record0.dense"][0, 1:], dim=-1)
    torch.testing.assert_close(features.T[:49], expected, atol=1e-4, rtol=0)


def test_predictions(golden: Golden) -> None:
    tensors, words = golden.tensors, golden.words
    for name, record in records(golden):
        expected = tensors[f"{name}prediction"].long()
        present = [words.vocabulary.objects.index(record["object"])]
        size = (expected.shape[0], expected.shape[1])
        (maps,) = golden.model.label_maps(inputs_of(golden, name), words, [size], [present])
        best = tensors[f"{name}scores_of_object"].amax(0)
        torch.testing.assert_close(maps.scores, best, atol=1e-4, rtol=0)
        # Where every score is 0 the reference's argmax takes the first class of the whole vocabulary.
        assert int(((maps.label_map != expected) & (best > 0)).sum()) <= 3


def test_the_prompts_alone_are_refused_by_name(folder: Path) -> None:
    from partclipseg.errors import PartCLIPSegError

    with pytest.raises(PartCLIPSegError, match=r"is a checkpoint of ZSSeg\+'s prompts alone"):
        load_file(folder / "prompt_checkpoint.pth")


@pytest.mark.parametrize("repair", ["attention", "object_vector"])
def test_a_repair_changes_what_it_says(golden: Golden, folder: Path, repair: str) -> None:
    repaired = load_file(folder / "checkpoint.pth", golden_config(golden.meta, reference=False, repairs=[repair]))
    inputs = inputs_of(golden, "record0.")
    with torch.no_grad():
        first, second = (model.stages(inputs, golden.words) for model in (golden.model, repaired))
    masks, classes = ((a[0] - b[0]).abs().max() for a, b in ((first.mask_logits, second.mask_logits),
                                                             (first.class_logits, second.class_logits)))  # fmt: skip
    assert classes > 0.5
    assert (masks > 0.1) == (repair == "attention")  # the object's vector goes into the classes alone


def test_every_released_name_fits(folder: Path) -> None:
    """The names and shapes of the files at their real size, on PyTorch's meta device."""
    from partclipseg.models.zsseg.config import ZSSegConfig
    from partclipseg.models.zsseg.foreign import UNUSED, place_of

    listed = json.loads((folder.parents[2] / "names_zsseg_r50.json").read_text())
    with torch.device("meta"):
        model = ZSSegModel(ZSSegConfig(reference=True))
    ours = {}
    for name, tensor in model.state_dict().items():
        if not name.endswith(("num_batches_tracked", "position_ids")):
            place = place_of(name)
            ours[place.name] = list(place.shape(tuple(tensor.shape)))
    unused = {name for name in listed if UNUSED.fullmatch(name)} - set(ours)
    assert ours == {name: shape for name, (shape, _) in listed.items() if name not in unused}
    assert len(unused) == 7
