"""Damaged and hostile model files: each is refused by one sentence that names the file and the remedy."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.models.damage import (
    CASES,
    DEEP,
    HTML,
    LFS,
    NO_VALUES,
    NOT_A_TABLE,
    Damage,
    as_bin,
    configure,
    cut,
    damaged,
    directory_in_place,
    drop,
    grow_vocabulary,
    lose_special_tokens,
    poison,
    remove,
    retokenize,
    sharded,
    tensors,
    write,
)
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

from partclipseg.errors import PartCLIPSegError
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.clipseg.plain import PlainCLIPSeg
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.registry import load_model

CONFIG: dict[str, tuple[Damage, str]] = {
    **{f"config: {name}": (write("config.json", content), words) for name, (content, words) in NOT_A_TABLE.items()},
    "config: gone": (remove("config.json"), "has no config.json"),
    "config: directory": (directory_in_place("config.json"), "config.json"),
    "config: no model_type": (configure(model_type=...), "without a model_type"),
    "config: model_type null": (configure(model_type=None), "without a model_type"),
    "config: model_type list": (configure(model_type=["partclipseg"]), "without a model_type"),
    "config: model_type sam": (configure(model_type="sam"), "of type 'sam', not one of partclipseg"),
    "config: model_type bert": (configure(model_type="bert"), "`partclipseg convert` or `train` wrote"),
    "config: 10^6 layers": (configure(vision_config__num_hidden_layers=10**6), "num_hidden_layers must be a whole"),
    "config: 10^6 text layers": (configure(text_config__num_hidden_layers=10**6), "num_hidden_layers must be a whole"),
    "config: 200 wide layers": (
        configure(vision_config__num_hidden_layers=200, vision_config__hidden_size=16_384),
        "asks for .* numbers and the weights hold",
    ),
    "config: a huge text tower": (configure(text_config__vocab_size=10_000_000), "asks for"),
    "config: a huge table of positions": (configure(vision_config__image_size=16_000), "asks for"),
    "config: unknown activation": (configure(vision_config__hidden_act="zelu"), "name of an activation"),
    "config: heads": (configure(text_config__num_attention_heads=3), "multiple of num_attention_heads"),
    "config: no heads": (
        configure(vision_config__num_attention_heads=...),
        "not a multiple of the number of attention",
    ),
    "config: a whole number as epsilon": (configure(vision_config__layer_norm_eps=0), "layer_norm_eps"),
    "config: patch larger than image": (configure(vision_config__patch_size=128), "at least patch_size"),
    "config: layers fall": (configure(extract_layers=[1, 0]), "must rise"),
    "config: one value more": (configure(image_mean=[0.5] * 4), "image_mean must be a list of 3"),
    "config: std of zero": (configure(image_std=[0, 1, 1]), "image_std must be"),
    "config: image of three sides": (configure(image_size=[64, 64, 64]), "image_size must be"),
    "config: tower is a list": (configure(vision_config=[1]), "vision_config must be a table"),
    "config: tower is gone": (configure(vision_config=...), "asks for|missing|must"),
    "config: other width": (configure(vision_config__hidden_size=64), "has shape"),
    "config: one layer more": (configure(vision_config__num_hidden_layers=6), "missing: clip.vision_model"),
    "config: one layer less": (
        configure(vision_config__num_hidden_layers=1, extract_layers=[0]),
        "unknown: clip.vision_model",
    ),
}
WEIGHTS: dict[str, tuple[Damage, str]] = {
    "weights: gone": (remove("model.safetensors"), "has no weights: put model.safetensors"),
    "weights: directory": (directory_in_place("model.safetensors"), "has no weights"),
    "weights: empty": (write("model.safetensors", b""), "is empty"),
    "weights: web page": (write("model.safetensors", HTML), "is a web page"),
    "weights: Git LFS pointer": (write("model.safetensors", LFS), "git lfs pull"),
    "weights: zeros": (write("model.safetensors", bytes(1000)), "cut or damaged"),
    "weights: huge header": (write("model.safetensors", b"\xff" * 7 + b"\0" + bytes(1000)), "cut or damaged"),
    **{
        f"weights: cut at {name}": (cut("model.safetensors", keep), "cut or damaged: copy or download it again")
        for name, keep in {
            "3 bytes": lambda size: 3,
            "the header": lambda size: 200,
            "a half": lambda size: size // 2,
            "the last byte": lambda size: size - 1,
        }.items()
    },
    "weights: a decoder's are missing": (
        tensors(drop("decoder.layers")),
        r"model in 24 tensors \(missing: decoder.layers.0.contract.bias, .*, and 14 more\): give the weights",
    ),
    "weights: one is missing": (tensors(drop("background")), r"1 tensor \(missing: background\)"),
    "weights: none": (tensors(dict.clear), "asks for|missing"),
    "weights: one more": (tensors(lambda t: t.update(surprise=torch.zeros(2))), "unknown: surprise"),
    "weights: mis-shaped": (
        tensors(lambda t: t.update(background=torch.zeros(1, 5))),
        r"background has shape \(1, 5\), expected \(1, 24\)",
    ),
    "weights: one dimension more": (
        tensors(lambda t: t.update(background=torch.zeros(1, 24, 1))),
        r"background has shape \(1, 24, 1\)",
    ),
    "weights: NaN": (poison(float("nan")), r"NaN or infinity in 1 tensor \(decoder.film.mul.weight\)"),
    "weights: infinity": (poison(float("inf")), "NaN or infinity in 1 tensor"),
    "weights: float16 infinity": (
        tensors(lambda t: t.update({k: v.half() for k, v in t.items()}, background=torch.full((1, 24), 1e6).half())),
        r"NaN or infinity in 1 tensor \(background\)",
    ),
    "weights: whole numbers": (
        tensors(lambda t: t.update(background=torch.zeros(1, 24, dtype=torch.int64))),
        r"background \(I64\).* not quantised",
    ),
    "weights: bytes": (tensors(lambda t: t.update(background=torch.zeros(1, 24, dtype=torch.uint8))), "not quantised"),
    "bin: missing": (as_bin(drop("decoder.film")), "missing: decoder.film"),
    "bin: NaN": (as_bin(lambda t: t["background"].fill_(float("nan")) is None), "NaN or infinity"),
    "bin: no table": (as_bin(lambda t: [1, 2]), "no table of tensors"),
    "bin: empty table": (as_bin(lambda t: {"model": {}}), "no table of tensors"),
    "bin: whole numbers": (as_bin(lambda t: t.update(background=torch.zeros(1, 24).int())), "not quantised"),
    "bin: expanded": (as_bin(lambda t: t.update(background=torch.zeros(1).expand(10**6, 10**6))), "has shape"),
    "shards: one is gone": (
        lambda d: (sharded(lambda i: None)(d), (d / "model-00002-of-00002.safetensors").unlink()),
        "there is no file",
    ),
    "shards: missing tensors": (sharded(lambda i: None, lambda name: "film" not in name), "film"),
    "shards: no map": (sharded(lambda i: i.pop("weight_map")), "has no weight_map"),
    "shards: map is a list": (sharded(lambda i: i.update(weight_map=["a"])), "has no weight_map"),
    "shards: map of numbers": (sharded(lambda i: i["weight_map"].update(background=7)), "no file beside it"),
    "shards: outside": (sharded(lambda i: i["weight_map"].update(background="../x.safetensors")), "no file beside it"),
    "shards: index is cut": (
        lambda d: (sharded(lambda i: None)(d), cut("model.safetensors.index.json", lambda size: size // 2)(d)),
        "not valid JSON",
    ),
}
TOKENIZER: dict[str, tuple[Damage, str]] = {
    **{
        f"{file}: {name}": (write(file, content), words)
        for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
        for name, (content, words) in NOT_A_TABLE.items()
    },
    "tokenizer: gone": (remove("tokenizer.json"), "has no tokenizer: give a directory"),
    "tokenizer: empty table": (write("tokenizer.json", b"{}"), "tokenizer .* cannot be"),
    "tokenizer: unknown model": (retokenize(lambda t: t["model"].update(type="X")), "tokenizer .* cannot be loaded"),
    "tokenizer: no vocabulary": (retokenize(lambda t: t["model"].update(vocab=None)), "does not end a text"),
    "tokenizer: ids are text": (retokenize(lambda t: t["model"].update(vocab={"a": "b"})), "tokenizer .* cannot be"),
    "tokenizer: negative ids": (retokenize(lambda t: t["model"]["vocab"].update(a=-1)), "tokenizer .* cannot be"),
    "tokenizer: too large": (retokenize(grow_vocabulary), "has 605 tokens and the text tower 600"),
    "tokenizer: a huge id": (retokenize(lambda t: t["model"]["vocab"].update(a=2**31)), "tokens and the text tower"),
    "tokenizer: no special tokens": (
        retokenize(lose_special_tokens),
        "tokenizer in .* cannot be used: give a directory",
    ),
    "tokenizer: class is a list": (configure("tokenizer_config.json", tokenizer_class=[1]), "tokenizer .* cannot be"),
    "tokenizer: end token is a number": (configure("tokenizer_config.json", eos_token=5), "tokenizer .* cannot be"),
}
VOCABULARY: dict[str, tuple[Damage, str]] = {
    f"vocabulary: {name}": (write("vocabulary.json", content), words)
    for name, (content, words) in {
        "empty": (b"", "cannot be used as the model's words"),
        "deep": (DEEP.encode(), "nested too deeply.*remove the file"),
        "not JSON": (HTML, "remove the file"),
        "not UTF-8": (b"\xff\xfe", "remove the file"),
        "null": (b"null", "remove the file"),
        "number": (b"7", "remove the file"),
        "numbers": (b"[1, 2, null]", "remove the file"),
        "pairs of numbers": (b"[[1, 2]]", "remove the file"),
        "table of null": (b'{"dog": null}', "remove the file"),
        "digits": (b"[" + b"9" * 5000 + b"]", "remove the file"),
        "huge": (b" " * (17 * 2**20), "larger than any list of words"),
    }.items()
}
DAMAGES = CONFIG | WEIGHTS | TOKENIZER | VOCABULARY


@pytest.fixture
def model(model_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_directory, tmp_path / "model"))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_directory_is_refused(model: Path, name: str):
    damage, words = DAMAGES[name]
    damage(model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PartCLIPSegError, match=words) as caught:
        PartSegmenter.from_pretrained(model, device="cpu")
    assert str(model) in str(caught.value), "the message must name the file"
    assert len(str(caught.value)) < 2500
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 500_000, "kilobytes"


FIELDS = [
    *(f"text_config__{name}" for name in ("hidden_size", "num_hidden_layers", "vocab_size", "eos_token_id")),
    *(f"vision_config__{name}" for name in ("hidden_size", "num_attention_heads", "patch_size", "image_size")),
    *("projection_dim", "reduce_dim", "extract_layers", "conditional_layer", "image_size", "image_mean"),
    *("decoder_num_attention_heads", "visual_adapter_ratio", "use_complex_transposed_convolution", "vision_config"),
]


@pytest.mark.parametrize("field", FIELDS)
def test_no_value_of_the_configuration_is_a_raw_error(model: Path, field: str):
    for value in NO_VALUES:
        shutil.copy(model / "config.json", model / "kept")
        configure(**{field: value})(model)
        try:
            load_model(model)
        except PartCLIPSegError as error:
            said = str(error)
        else:
            said = str(model)
        assert str(model) in said
        shutil.move(model / "kept", model / "config.json")


def test_entries_that_no_model_reads_change_nothing(model: Path):
    configure(
        dtype="nonsense",
        num_labels=10**12,
        quantization_config={"quant_method": "x"},
        attn_implementation="flash_attention_9",
        auto_map={"AutoModel": "x.X"},
        id2label=[1],
        return_dict=False,
    )(model)
    configure("tokenizer_config.json", tokenizer_class="X", auto_map={"AutoTokenizer": ["x.X", "x.X"]})(model)
    segmenter = PartSegmenter.from_pretrained(model, device="cpu")
    assert isinstance(segmenter.model, PartCLIPSegModel)
    assert segmenter.tokenizer("dog")["input_ids"] == [598, 67, 78, 164, 599]


@pytest.mark.parametrize("layout", [sharded(lambda index: None), as_bin(lambda content: None)])
def test_every_layout_of_weights_is_read(model: Path, model_directory: Path, layout: Damage):
    layout(model)
    whole = load_model(model_directory).state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in load_model(model).state_dict().items())


# -- CLIPSeg as a start ----------------------------------------------------------------------------------------------


@pytest.fixture
def clipseg(config: PartCLIPSegConfig, tmp_path: Path) -> Path:
    values = config.to_dict()
    fields = ("text_config", "vision_config", "projection_dim", "reduce_dim", "extract_layers")
    source = CLIPSegForImageSegmentation(CLIPSegConfig(**{field: values[field] for field in fields}))
    source.save_pretrained(tmp_path / "clipseg")
    return tmp_path / "clipseg"


@pytest.mark.parametrize("cls", [PartCLIPSegModel, CLIPSegBaseline, PlainCLIPSeg])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (tensors(drop("decoder.reduces")), r"6 tensors \(missing: decoder.reduces.0.bias"),
        (tensors(lambda t: t["decoder.film_mul.weight"].fill_(float("nan"))), "NaN or infinity in 1 tensor"),
        (tensors(lambda t: t.update(x=torch.zeros(1))), "unknown: x"),
        (configure(vision_config__num_hidden_layers=10**6), "num_hidden_layers"),
        (configure(vision_config__num_hidden_layers="many"), "num_hidden_layers"),
        (cut("model.safetensors", lambda size: size - 9), "cut or damaged"),
    ],
)
def test_a_damaged_clipseg_is_no_start(clipseg: Path, cls: Any, damage: Damage, words: str):
    damage(clipseg)
    with pytest.raises(PartCLIPSegError, match=words):
        cls.from_pretrained(clipseg)


def test_position_ids_of_old_files_are_no_fault(clipseg: Path):
    ids = {"clip.text_model.embeddings.position_ids": torch.arange(24)[None]}
    tensors(lambda t: t.update(ids))(clipseg)
    assert isinstance(PartCLIPSegModel.from_pretrained(clipseg), PartCLIPSegModel)
    assert isinstance(load_model(clipseg), PlainCLIPSeg)


def test_a_file_is_no_model(model: Path):
    for file, words in (
        ("model.safetensors", "is a file: give the model's directory"),
        ("x.pth", "partclipseg convert"),
    ):
        (model / file).touch()
        with pytest.raises(PartCLIPSegError, match=words):
            PartSegmenter.from_pretrained(model / file)


# -- any bytes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_bytes_load_or_are_refused(model_directory: Path, tmp_path_factory: Any, file: str, data: st.DataObject):
    folder = tmp_path_factory.mktemp("model") / "m"
    shutil.copytree(model_directory, folder)
    (folder / file).write_bytes(data.draw(damaged((model_directory / file).read_bytes())))
    try:
        PartSegmenter.from_pretrained(folder, device="cpu")
    except PartCLIPSegError as error:
        said = str(error)
    else:
        said = str(folder)
    finally:
        shutil.rmtree(folder)
    assert str(folder) in said
