"""Released files in: names, families, misfits, and what training starts from."""

import re
from dataclasses import replace

import pytest
import torch
from tests.models.partcatseg.small import build, small_config
from transformers import CLIPModel, Dinov2Model, ResNetModel

from partclipseg.data.photo_size import size_at_shortest_edge
from partclipseg.errors import PartCLIPSegError
from partclipseg.models.partcatseg.config import CATSegConfig, PartCATSegConfig
from partclipseg.models.partcatseg.foreign import family_of, load_released, place_of, read_released, released_config
from partclipseg.models.partcatseg.model import CATSegModel, PartCATSegModel
from partclipseg.models.partcatseg.settings import CATSegSettings, PartCATSegSettings
from partclipseg.models.partcatseg.start import start_model
from partclipseg.models.registry import find_foreign, load_file
from partclipseg.vocabulary import Vocabulary

HEAD = "sem_seg_head.predictor."


def released(model, background=True):
    """The model's tensors as the reference would write them, with those that are never used."""
    stacks, tensors = {}, {}
    for name, tensor in model.state_dict().items():
        place = place_of(name)
        if name.endswith("num_batches_tracked"):
            continue
        tensor = tensor.T if place.transposed else tensor
        if place.third is None:
            tensors[place.name] = tensor
        else:
            stacks.setdefault(place.name, {})[place.third] = tensor
    tensors |= {name: torch.cat([thirds[i] for i in range(3)]) for name, thirds in stacks.items()}
    tensors["transformer.layers.0.swin_block.block_2.attn_mask"] = torch.zeros(4, 4, 4)
    if not background:
        del tensors["non_object_embedding"]
    return {name if name.startswith("backbone.") else HEAD + name: t.clone() for name, t in tensors.items()}


def write(path, tensors):
    torch.save({"model": tensors, "iteration": 7, "optimizer": {"state": {}}}, path)
    return path


def same(one, other, prefix=""):
    theirs = other.state_dict()
    return all(torch.equal(t, theirs[n]) for n, t in one.state_dict().items() if n.startswith(prefix))


@pytest.fixture
def model(family):
    return build(small_config(family))


def test_released_file_round_trip(model, tmp_path):
    path = write(tmp_path / "model.pth", released(model))
    assert same(load_released(path, model.config), model)


@pytest.mark.parametrize("rename", [lambda n: f"module.{n}", lambda n: n.removeprefix(HEAD)])
def test_prefixes_of_other_writers(model, tmp_path, rename):
    tensors = {rename(name): tensor for name, tensor in released(model).items()}
    torch.save(tensors, tmp_path / "bare.pth")  # without a table "model"
    assert same(load_released(tmp_path / "bare.pth", model.config), model)


def test_families_are_recognised(tmp_path):
    for config, expected in (
        (small_config(PartCATSegConfig), (PartCATSegModel, "dinov2")),
        (small_config(CATSegConfig), (CATSegModel, "resnet")),
        (dinov2_catseg(), (CATSegModel, "dinov2")),
    ):
        tensors = read_released(write(tmp_path / "model.pth", released(build(config))))
        cls, guidance = expected
        assert family_of(tensors, "x") is cls
        found = released_config(tensors, "x")
        assert (type(found), found.guidance_config.model_type) == (cls.config_class, guidance)
        assert found.reference


def dinov2_catseg():
    return small_config(CATSegConfig, guidance_config=small_config().guidance_config, guidance_image_size=56)


def test_catseg_s_own_file_has_no_background(tmp_path, caplog):
    model = build(small_config(CATSegConfig))
    path = write(tmp_path / "model_final_base.pth", released(model, background=False))
    found = load_released(path, model.config)
    assert same(found, model, "aggregator.")
    assert "has no background" in caplog.text


def test_a_missing_background_of_partcatseg_is_an_error(tmp_path):
    model = build(small_config())
    path = write(tmp_path / "model.pth", released(model, background=False))
    with pytest.raises(PartCLIPSegError, match="missing: non_object_embedding"):
        load_released(path, model.config)


@pytest.mark.parametrize(
    ("ours", "theirs", "third"),
    [
        ("attention.attention.query.bias", "attn.qkv.bias", 0),
        ("attention.attention.value.weight", "attn.qkv.weight", 2),
        ("attention.k_proj.weight", "attn.qkv.weight", 1),
        ("attention.output.dense.bias", "attn.proj.bias", None),
        ("attention.o_proj.bias", "attn.proj.bias", None),
    ],
)
def test_names_of_dinov2_in_every_version_of_transformers(ours, theirs, third):
    found = place_of(f"guidance.tower.encoder.layer.3.{ours}")
    assert found == (f"backbone.dinov2.blocks.3.{theirs}", third, False)


def test_unused_tensors_are_skipped(tmp_path):
    model = build(small_config())
    tensors = released(model)
    for name in (
        "sem_seg_head.predictor.transformer.layers_object.0.attention.norm1.weight",
        "backbone.dinov2.mask_token",
    ):
        tensors[name] = torch.ones(3)
    assert same(load_released(write(tmp_path / "model.pth", tensors), model.config), model)


class Harm:
    def __reduce__(self):
        return print, ("harm",)


@pytest.mark.parametrize(
    ("write_file", "message"),
    [
        (lambda path: None, "there is no file"),
        (lambda path: path.write_bytes(b"no checkpoint"), "refused|not a readable"),
        (lambda path: torch.save({"model": Harm()}, path), "refused"),
        (lambda path: torch.save({"model": {}}, path), "no table of tensors"),
        (lambda path: torch.save({"model": {"a": 1}}, path), "no table of tensors"),
        (lambda path: torch.save([1, 2], path), "no table of tensors"),
        (lambda path: torch.save({"model": {"clip.weight": torch.zeros(1)}}, path), "no cost aggregation"),
    ],
)
def test_other_files_are_refused(tmp_path, capsys, write_file, message):
    write_file(tmp_path / "file.pth")
    with pytest.raises(PartCLIPSegError, match=message):
        load_released(tmp_path / "file.pth")
    assert "harm" not in capsys.readouterr().out


def test_misfits_are_listed_in_full(model, tmp_path):
    tensors = released(model)
    del tensors[HEAD + "transformer.conv1.bias"], tensors[HEAD + "clip_model.ln_final.weight"]
    tensors[HEAD + "transformer.head.weight"] = torch.zeros(2, 2)
    tensors[HEAD + "clip_model.visual.transformer.resblocks.0.attn.in_proj_weight"] = torch.zeros(7, 2)
    tensors["something"] = torch.zeros(1)
    with pytest.raises(PartCLIPSegError) as caught:
        load_released(write(tmp_path / "model.pth", tensors), model.config)
    message = str(caught.value)
    for line in (
        "missing: transformer.conv1.bias",
        "missing: clip_model.ln_final.weight",
        "transformer.head.weight has shape (2, 2), expected (1, 16, 3, 3)",
        "resblocks.0.attn.in_proj_weight has shape (7, 2), expected (96, 32)",
        "unknown: something",
    ):
        assert line in message


@pytest.mark.parametrize("lost", ["conv_proj_feat", "conv2", "layers_specific_part"])
def test_a_file_without_a_piece_of_the_second_stage_is_still_partcatseg_s(tmp_path, lost):
    model = build(small_config())
    tensors = {name: t for name, t in released(model).items() if not name.startswith(f"{HEAD}transformer.{lost}.")}
    with pytest.raises(PartCLIPSegError, match=rf"missing: transformer\.{lost}\."):
        load_released(write(tmp_path / "model.pth", tensors), model.config)


def test_a_configuration_of_the_other_family(tmp_path):
    path = write(tmp_path / "model.pth", released(build(small_config())))
    with pytest.raises(PartCLIPSegError, match="of type 'partcatseg'"):
        load_released(path, small_config(CATSegConfig))


# -- starts -------------------------------------------------------------------------------------------------------


def towers(tmp_path):
    """Directories of a CLIP, a DINOv2 with a mask token, and a ResNet with four stages."""
    torch.manual_seed(11)
    config = small_config()
    clip = CLIPModel(config.clip_config)
    dinov2_config = config.guidance_config.from_dict({**config.guidance_config.to_dict(), "use_mask_token": True})
    dinov2 = Dinov2Model(dinov2_config)
    resnet_config = small_config(CATSegConfig).guidance_config
    values = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
    kept = {"embedding_size": 8}
    resnet = ResNetModel(type(resnet_config)(**values, **kept))
    for name, tower in (("clip", clip), ("dinov2", dinov2), ("resnet", resnet)):
        tower.save_pretrained(tmp_path / name)
    return clip, dinov2, resnet


def test_partcatseg_starts_from_clip_and_dinov2(tmp_path):
    clip, dinov2, _ = towers(tmp_path)
    settings = PartCATSegSettings(guidance=str(tmp_path / "dinov2"))
    found = start_model(PartCATSegModel, str(tmp_path / "clip"), settings, small_config())
    assert same_tensors(clip.state_dict(), found.clip.state_dict())
    assert same_tensors(found.guidance.tower.state_dict(), dinov2.state_dict())


def same_tensors(some, others):
    return all(torch.equal(tensor, others[name]) for name, tensor in some.items())


@pytest.mark.parametrize(("repairs", "equal"), [(None, True), ((), False)])
def test_partcatseg_starts_from_catseg(tmp_path, repairs, equal):
    """As released the second stage copies the random first stage (D5); repaired, the loaded one."""
    towers(tmp_path)
    start = build(small_config(CATSegConfig))
    path = write(tmp_path / "model_final_base.pth", released(start, background=False))
    settings = PartCATSegSettings(guidance=str(tmp_path / "dinov2"), repairs=repairs)
    found = start_model(PartCATSegModel, str(path), settings, small_config())
    assert same(found.clip, start.clip)
    for name in ("cost_embedding", "layers", "text_projection", "decoder1", "decoder2", "head"):
        assert same(getattr(start.aggregator, name), getattr(found.aggregator, name)), name
    second = found.aggregator.pair_layers.state_dict()
    assert same_tensors(start.aggregator.layers.state_dict(), second) == equal


def test_catseg_starts_from_clip_and_a_resnet_of_four_stages(tmp_path):
    *_, resnet = towers(tmp_path)
    settings = CATSegSettings(guidance=str(tmp_path / "resnet"))
    found = start_model(CATSegModel, str(tmp_path / "clip"), settings, small_config(CATSegConfig))
    assert same_tensors(found.guidance.tower.state_dict(), resnet.state_dict())
    with pytest.raises(PartCLIPSegError, match="PartCATSeg takes its guidance from DINOv2"):
        start_model(PartCATSegModel, str(tmp_path / "clip"), settings, small_config())


@pytest.mark.parametrize("start", ["clip", "catseg"])
def test_guidance_of_other_patches_takes_photos_of_its_own_size(tmp_path, start):
    towers(tmp_path)
    tower = small_config().guidance_config
    build(dinov2_catseg()).save_pretrained(tmp_path / "catseg")
    Dinov2Model(type(tower)(**{**tower.to_dict(), "patch_size": 20})).save_pretrained(tmp_path / "dinov2")
    settings = PartCATSegSettings(guidance=str(tmp_path / "dinov2"))
    with pytest.raises(PartCLIPSegError, match="guidance_image_size 56 must be a multiple of DINOv2's patch of 20"):
        start_model(PartCATSegModel, str(tmp_path / start), settings, small_config())
    settings = replace(settings, guidance_image_size=80)
    found = start_model(PartCATSegModel, str(tmp_path / start), settings, small_config())
    assert found.config.guidance_image_size == 80


def test_start_without_guidance_weights_is_an_error(tmp_path):
    towers(tmp_path)
    with pytest.raises(PartCLIPSegError, match="no weights for the guidance tower"):
        start_model(PartCATSegModel, str(tmp_path / "clip"), PartCATSegSettings(), small_config())


def test_start_from_a_released_file(tmp_path):
    model = build(small_config())
    path = write(tmp_path / "partcatseg_voc.pth", released(model))
    found = start_model(PartCATSegModel, str(path), PartCATSegSettings(), model.config)
    assert same(found, model)
    assert not found.config.reference
    reference = start_model(PartCATSegModel, str(path), PartCATSegSettings(reference=True), model.config)
    assert reference.config.repairs == []
    with pytest.raises(PartCLIPSegError, match="configuration asks for"):  # the released sizes
        PartCATSegModel.from_start(str(path), PartCATSegSettings())


def test_start_from_our_directory(model, tmp_path):
    model.save_pretrained(tmp_path)
    settings = CATSegSettings(repairs=("padding",))
    assert same(type(model).from_start(str(tmp_path), settings), model)
    assert type(model).from_start(str(tmp_path), settings).config.repairs == ["padding"]
    assert type(model).from_start(str(tmp_path), CATSegSettings()).config.repairs == model.config.repairs


def test_partcatseg_starts_from_our_catseg_directory(tmp_path):
    start = build(small_config(CATSegConfig))
    start.save_pretrained(tmp_path / "start")
    _, dinov2, _ = towers(tmp_path)
    settings = PartCATSegSettings(guidance=str(tmp_path / "dinov2"))
    with pytest.raises(PartCLIPSegError, match="no weights for the guidance"):
        PartCATSegModel.from_start(str(tmp_path / "start"), PartCATSegSettings())
    found = PartCATSegModel.from_start(str(tmp_path / "start"), settings)
    assert same_tensors(start.aggregator.layers.state_dict(), found.aggregator.pair_layers.state_dict())
    assert same_tensors(found.guidance.tower.state_dict(), dinov2.state_dict())


def test_dinov2_s_own_file(tmp_path):
    model = build(small_config())
    own = {n.removeprefix("backbone.dinov2."): t for n, t in released(model).items() if n.startswith("backbone.")}
    torch.save(own, tmp_path / "dinov2_vits14.pth")
    build(small_config()).save_pretrained(tmp_path / "start")
    settings = PartCATSegSettings(guidance=str(tmp_path / "dinov2_vits14.pth"))
    found = PartCATSegModel.from_start(str(tmp_path / "start"), settings)
    assert same(found.guidance, model.guidance)
    del own["cls_token"]
    torch.save(own, tmp_path / "dinov2_vits14.pth")
    with pytest.raises(PartCLIPSegError, match=r"missing: backbone\.dinov2\.cls_token"):
        PartCATSegModel.from_start(str(tmp_path / "start"), settings)


def test_unknown_start(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PartCLIPSegError, match=r"there is no directory .*: give a directory or hub name of CLIP"):
        PartCATSegModel.from_start(str(tmp_path / "absent"), PartCATSegSettings())
    Dinov2Model(small_config().guidance_config).save_pretrained(tmp_path / "dinov2")
    with pytest.raises(PartCLIPSegError, match="cannot start"):
        PartCATSegModel.from_start(str(tmp_path / "dinov2"), PartCATSegSettings())


DAMAGES = {
    "no JSON": ("config.json", lambda content: content[:40], "config.json"),
    "no weights": ("model.safetensors", None, "has no weights"),
    "cut weights": ("model.safetensors", lambda content: content[: len(content) // 2], "cut or damaged"),
    "another size": (
        "config.json",
        lambda content: re.sub(rb'"hidden_size": \d+', b'"hidden_size": 16384', content),
        "the configuration asks for",
    ),
    "a word for a number": (
        "config.json",
        lambda content: re.sub(rb'"hidden_size": \d+', b'"hidden_size": "wide"', content),
        "cannot be loaded|hidden_size",
    ),
}


@pytest.mark.parametrize("place", ["clip", "dinov2"])
@pytest.mark.parametrize(("file", "change", "words"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_starts_and_guidance_are_said_in_a_sentence(tmp_path, place, file, change, words):
    towers(tmp_path)
    path = tmp_path / place / file
    content = path.read_bytes()
    path.unlink()
    if change is not None:
        assert change(content) != content
        path.write_bytes(change(content))
    settings = PartCATSegSettings(guidance=str(tmp_path / "dinov2"))
    with pytest.raises(PartCLIPSegError, match=words) as raised:
        start_model(PartCATSegModel, str(tmp_path / "clip"), settings, small_config())
    assert "\n" not in str(raised.value)
    assert str(tmp_path / place) in str(raised.value)


def test_a_start_whose_weights_are_not_numbers(tmp_path):
    clip, *_ = towers(tmp_path)
    clip.logit_scale.data.fill_(float("nan"))
    clip.save_pretrained(tmp_path / "clip")
    with pytest.raises(PartCLIPSegError, match="NaN or infinity in 1 tensor"):
        start_model(PartCATSegModel, str(tmp_path / "clip"), PartCATSegSettings(), small_config())


# -- the data set of the file's training ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "values", "edge"),
    [
        ("part-imagenet", {}, None),  # whose photos the released code does not resize
        ("part-imagenet", {"shortest_edge": 70}, 70),
        ("pascal-part-116", {}, 640),
        ("dog: head", {}, 640),
    ],
)
def test_photos_of_part_imagenet_keep_their_size(model, tmp_path, words, values, edge):
    path, sizes = write(tmp_path / "model.pth", released(model)), model.config.to_dict()
    del sizes["shortest_edge"]
    vocabulary = Vocabulary.load(words)
    _, config = find_foreign(path, {**sizes, "repairs": None, "reference": True, **values}, vocabulary)
    found = load_released(path, config)
    assert same(found, model)
    found.save_pretrained(tmp_path / "directory")
    read = type(model).from_pretrained(tmp_path / "directory")
    assert read.config.shortest_edge == edge
    expected = (375, 500) if edge is None else size_at_shortest_edge((375, 500), edge, 100)
    assert read.first_size((375, 500)) == expected


def test_sizes_of_a_dinov2_file_need_not_name_its_tower(tmp_path):
    model = build(dinov2_catseg())
    path, sizes = write(tmp_path / "model.pth", released(model)), model.config.to_dict()
    del sizes["guidance_config"]["model_type"]
    assert same(load_file(path, {**sizes, "repairs": None, "reference": True}), model)


def test_a_run_may_take_photos_at_their_own_size(model, tmp_path):
    model.save_pretrained(tmp_path)
    settings = CATSegSettings(own_size=True)
    assert type(model).from_start(str(tmp_path), settings).config.shortest_edge is None
    assert type(model).from_start(str(tmp_path), CATSegSettings()).config.shortest_edge == 70
