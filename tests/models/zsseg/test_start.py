"""What a training of ZSSeg+ starts from: CLIP with a MaskFormer, or a file that does not do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.test_families import small_zsseg
from transformers import CLIPConfig, CLIPModel

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.zsseg.config import ZSSegConfig
from partclipseg.models.zsseg.foreign import place_of
from partclipseg.models.zsseg.maskformer import LEFT_ASIDE, fill_stage_1
from partclipseg.models.zsseg.model import ZSSegModel
from partclipseg.models.zsseg.settings import ZSSegSettings

Tensors = dict[str, torch.Tensor]


def maskformer_of(model: ZSSegModel) -> Tensors:
    """The tensors of stage 1 as detectron2's MaskFormer names them, with what it has besides."""
    tensors: Tensors = {}
    for name, tensor in model.proposals.state_dict(prefix="proposals.").items():
        if name.startswith("proposals.class_head.") or name.endswith("num_batches_tracked"):
            continue
        place = place_of(name)
        if place.third is None:
            tensors[place.name] = tensor.clone()
        else:
            new = torch.zeros(place.shape(tuple(tensor.shape)), device=tensor.device)
            stacked = tensors.setdefault(place.name, new)
            stacked.chunk(3)[place.third].copy_(tensor)
    head = {"weight": torch.zeros(134, 32), "bias": torch.zeros(134)}
    return {
        **tensors,
        **{f"sem_seg_head.predictor.class_embed.{name}": tensor for name, tensor in head.items()},
        "criterion.empty_weight": torch.ones(134),
    }


def first_version(tensors: Tensors) -> Tensors:
    return {name.replace("sem_seg_head.pixel_decoder.", "sem_seg_head."): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("named", [dict, first_version], ids=["today", "first version"])
def test_stage_1_starts_from_a_maskformer(named: Callable[[Tensors], Tensors], tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, model = ZSSegModel(small_zsseg()), ZSSegModel(small_zsseg())
    heads = [tensor.clone() for tensor in model.proposals.class_head.parameters()]
    torch.save({"model": named(maskformer_of(source))}, tmp_path / "maskformer.pth")
    fill_stage_1(model, tmp_path / "maskformer.pth")
    for name, tensor in source.proposals.state_dict().items():
        if not name.startswith("class_head."):
            assert torch.equal(model.proposals.state_dict()[name], tensor), name
    assert all(map(torch.equal, heads, model.proposals.class_head.parameters()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "criterion.empty_weight"}, None),
        (lambda t: {k: v for k, v in t.items() if k != "backbone.stem.conv1.weight"}, "backbone.stem.conv1.weight"),
        (lambda t: {**t, "sem_seg_head.pixel_decoder.transformer.x": torch.ones(1)}, "pixel_decoder.transformer.x"),
        (lambda t: {**t, "sem_seg_head.predictor.query_embed.weight": torch.ones(7, 32)}, "query_embed.weight"),
        (lambda t: {**t, "backbone.stem.conv1.weight": t["backbone.stem.conv1.weight"] / 0}, "embedder"),
    ],
    ids=["class weights missing", "missing", "with an encoder", "other number of queries", "not finite"],
)
def test_files_that_do_not_fit(change: Callable[[Tensors], Tensors], message: str | None, tmp_path: Path) -> None:
    model = ZSSegModel(small_zsseg())
    torch.save({"model": change(maskformer_of(model))}, tmp_path / "maskformer.pth")
    if message is None:
        fill_stage_1(model, tmp_path / "maskformer.pth")
        return
    with pytest.raises(PartCLIPSegError, match=message):
        fill_stage_1(model, tmp_path / "maskformer.pth")


def test_the_released_sizes_take_407_of_410_tensors() -> None:
    """The other three are the classifier of fixed classes, and the class weights of the loss."""
    with torch.device("meta"):
        model = ZSSegModel(ZSSegConfig())
    tensors = maskformer_of(model)
    aside = {name for name in tensors if LEFT_ASIDE.fullmatch(name)}
    assert (len(tensors), len(aside)) == (410, 3)
    listed = Path(__file__).resolve().parents[4] / "shared/reference/names_zsseg_r50.json"
    if listed.is_file():
        assert set(tensors) - aside <= set(json.loads(listed.read_text()))


def clip_at(folder: Path, **settings: Any) -> None:
    config: Any = small_zsseg().clip_config
    CLIPModel(CLIPConfig(**{**config.to_dict(), **settings})).save_pretrained(folder)


def test_starts_that_cannot_be(tmp_path: Path) -> None:
    clip_at(tmp_path / "clip")
    start = ZSSegModel.from_start
    with pytest.raises(PartCLIPSegError, match="no weights for the ResNet of stage 1"):
        start(str(tmp_path / "clip"), ZSSegSettings())
    torch.save({"model": maskformer_of(ZSSegModel(small_zsseg()))}, tmp_path / "maskformer.pth")
    with pytest.raises(PartCLIPSegError, match="has batch norms in its backbone, and this one group norms"):
        start(str(tmp_path / "clip"), ZSSegSettings(sizes="tiny", maskformer=str(tmp_path / "maskformer.pth")))
    with pytest.raises(PartCLIPSegError, match=r"give a directory or hub name of CLIP"):
        start(str(tmp_path / "nowhere"), ZSSegSettings())
    clip_at(tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(PartCLIPSegError, match=r"cut.model\.safetensors is cut or damaged"):
        start(str(tmp_path / "cut"), ZSSegSettings(sizes="tiny"))
    ZSSegModel(small_zsseg()).save_pretrained(tmp_path / "own")
    own = start(str(tmp_path / "own"), ZSSegSettings(reference=True))
    assert own.config.reference
    assert not start(str(tmp_path / "own"), ZSSegSettings(repairs=("oracle",))).config.repaired("attention")
    model = start(str(tmp_path / "clip"), ZSSegSettings(sizes="tiny"))
    assert model.config.backbone_norm == "group"
    assert torch.equal(
        model.clip.text_projection.weight, CLIPModel.from_pretrained(tmp_path / "clip").text_projection.weight
    )


def test_prompts_end_at_the_largest_token_in_old_files_of_clip() -> None:
    """Their configurations state 2 as the end token, CLIP's own among them."""
    torch.manual_seed(0)
    new = ZSSegModel(small_zsseg()).eval()
    clip: Any = small_zsseg().clip_config.to_dict()
    text = {**clip["text_config"], "eos_token_id": 2}
    old = ZSSegModel(small_zsseg(clip_config={**clip, "text_config": text})).eval()
    old.load_state_dict(new.state_dict())
    prompts = torch.tensor([[598, 7, 105, 9, 599], [598, 7, 8, 105, 599]])  # dog , ear and the like
    with torch.no_grad():
        expected, found = (model.encode_text(prompts, torch.ones_like(prompts)) for model in (new, old))
    assert not torch.equal(expected[0], expected[1])
    assert torch.equal(found, expected)
