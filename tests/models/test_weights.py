"""Foreign weights: released files and CLIPSeg checkpoints, whole or refused."""

import json
import logging
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from transformers import CLIPSegForImageSegmentation

from partclipseg.apps.cli import main
from partclipseg.errors import PartCLIPSegError
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.clipseg_weights import foreign_names, to_clipseg
from partclipseg.models.interface import Words
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.foreign import load_reference_checkpoint
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.partclipseg.settings import PartCLIPSegSettings
from partclipseg.models.registry import load_model, load_tokenizer
from partclipseg.vocabulary import Vocabulary


@pytest.fixture
def released(config, tmp_path):
    """A file laid out as released ones are, made from a random model of ours."""
    model = PartCLIPSegModel(config)
    tensors = {}
    for name, tensor in model.state_dict().items():
        names = foreign_names(name, config)
        shares = tensor.chunk(len(names)) if len(names) > 1 else [tensor]
        tensors.update(zip((f"partclipseg_model.{theirs}" for theirs in names), shares, strict=True))
    tensors["partclipseg_model.clip.text_model.embeddings.position_ids"] = torch.arange(24)[None]
    tensors["partclipseg_model.tunable_linear.weight"] = torch.zeros(1000, config.projection_dim)
    tensors["partclipseg_model.text_adapter.fc.0.weight"] = torch.zeros(6, config.projection_dim)
    path = tmp_path / "released.pth"
    torch.save({"model": tensors, "iteration": 7}, path)
    return path, model, tensors


def reference_config(config):
    return PartCLIPSegConfig.from_reference(config.to_dict() | {"reference_object_lookup": True})


def test_released_file_round_trip(released, config):
    path, model, _ = released
    loaded = load_reference_checkpoint(path, reference_config(config))
    assert loaded.config.reference_object_lookup
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda t: t.pop("partclipseg_model.decoder.reduces.1.bias"), "missing: decoder.reduces.1.bias"),
        (lambda t: t.update(surprise=torch.zeros(2)), "unknown: surprise"),
        (
            lambda t: t.update({"partclipseg_model.non_object_embedding": torch.zeros(1, 5)}),
            r"non_object_embedding has shape \(1, 5\), expected \(1, 24\)",
        ),
        (
            lambda t: t.update({"partclipseg_model.decoder.layers.0.self_attn.k_proj.bias": torch.zeros(3)}),
            r"layers.0.self_attn.k_proj.bias has shape \(3,\), expected \(16,\)",
        ),
    ],
)
def test_unfitting_tensors_are_listed(released, config, damage, named):
    path, _, tensors = released
    damage(tensors)
    torch.save({"model": tensors}, path)
    with pytest.raises(PartCLIPSegError, match=named):
        load_reference_checkpoint(path, reference_config(config))


class RunsCode:
    def __reduce__(self):
        return (print, ("this must not run",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"model": RunsCode()}, protocol=2), "is refused"),
        (pickle.dumps({"model": RunsCode()}, protocol=4), "is refused"),
        (b"no checkpoint at all", "is refused|not a readable"),
        (b"", "not a readable"),
        (None, "there is no file"),
    ],
)
def test_unsafe_or_unreadable_files(tmp_path, capsys, content, message):
    path = tmp_path / "file.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PartCLIPSegError, match=message):
        load_reference_checkpoint(path)
    assert "must not run" not in capsys.readouterr().out


def test_a_torch_file_with_code_is_refused(tmp_path):
    path = tmp_path / "file.pth"
    torch.save({"model": {"a": torch.zeros(1)}, "trainer": RunsCode()}, path)
    with pytest.raises(PartCLIPSegError, match="is refused"):
        load_reference_checkpoint(path)


def test_reference_configuration_defaults_are_the_released_models():
    config = PartCLIPSegConfig.from_reference()
    assert (config.vision_config.hidden_size, config.vision_config.patch_size) == (768, 16)
    assert (config.projection_dim, config.reduce_dim, config.image_shape) == (512, 64, (352, 352))
    assert config.reference_object_lookup
    assert config.use_complex_transposed_convolution


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extract_layers": [1, 9]}, "extract_layers"),
        ({"extract_layers": [2, 1]}, "must rise"),
        ({"reduce_dim": 18}, "multiple of decoder_num_attention_heads"),
        ({"conditional_layer": 3}, "conditional_layer"),
    ],
)
def test_impossible_configurations(config, changes, message):
    with pytest.raises(PartCLIPSegError, match=message):
        PartCLIPSegConfig(**{**config.to_dict(), **changes})


@pytest.fixture
def clipseg_directory(random_clipseg, tmp_path):
    random_clipseg.save_pretrained(tmp_path / "clipseg")
    return tmp_path / "clipseg"


@pytest.mark.parametrize("cls", [PartCLIPSegModel, CLIPSegBaseline])
def test_starting_from_clipseg(clipseg_directory, cls):
    source = CLIPSegForImageSegmentation.from_pretrained(clipseg_directory)
    model = cls.from_pretrained(clipseg_directory, image_size=64)
    theirs, copied = source.state_dict(), 0
    for name, tensor in model.state_dict().items():
        if name.startswith(("background", "visual_adapter", "decoder.class_", "decoder.merge_")):
            continue
        sources = [theirs[foreign] for foreign in foreign_names(name, model.config)]
        assert torch.equal(tensor, torch.cat(sources) if len(sources) > 1 else sources[0]), name
        copied += len(sources)
    assert copied == len(theirs)


def test_clipseg_round_trip(clipseg_directory):
    """What starts from CLIPSeg and goes back is CLIPSeg again."""
    there = CLIPSegBaseline.from_pretrained(clipseg_directory)
    back, source = to_clipseg(there).state_dict(), CLIPSegForImageSegmentation.from_pretrained(clipseg_directory)
    assert all(torch.equal(back[name], tensor) for name, tensor in source.state_dict().items())


def test_an_untrained_class_is_the_mean_of_its_words(clipseg_directory):
    decoder = PartCLIPSegModel.from_pretrained(clipseg_directory).decoder
    for copy, original in ((decoder.class_film, decoder.film), (decoder.class_upsample, decoder.upsample)):
        for ours, theirs in zip(copy.parameters(), original.parameters(), strict=True):
            assert torch.equal(ours, theirs)
    halves = torch.randn(2, 16)
    merged = decoder.merge_features(halves.flatten())
    # Exact up to one rounding of a sum of two halves.
    torch.testing.assert_close(merged, halves.mean(0), atol=1e-6, rtol=0)


def test_clipseg_logits_survive(clipseg_directory):
    """The words' logits of an unadapted start are CLIPSeg's own."""
    source = CLIPSegForImageSegmentation.from_pretrained(clipseg_directory).eval()
    model = CLIPSegBaseline.from_pretrained(clipseg_directory, visual_adapter_ratio=0.0)
    pixels, ids = torch.randn(1, 3, 64, 64), torch.tensor([[598, 5, 9, 599], [598, 7, 599, 599]])
    mask = (torch.arange(4) < torch.tensor([[4], [3]])).long()
    with torch.no_grad():
        expected = source(pixel_values=pixels.expand(2, -1, -1, -1), input_ids=ids, attention_mask=mask).logits
        actual = model.word_logits({"pixel_values": pixels}, model.encode_text(ids, mask))[0]
    # Same float32 arithmetic, another batching of the matrix products; transformers draws decoders with std 1.0, so
    # that the logits are in the thousands and only their relative error means something.
    assert (actual - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda d: None, "no directory .*give a model's directory"),
        (lambda d: d.mkdir(), "no config.json"),
    ],
)
def test_unloadable_names(tmp_path, monkeypatch, prepare, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    prepare(tmp_path / "nothing")
    with pytest.raises(PartCLIPSegError, match=message):
        PartCLIPSegModel.from_pretrained(tmp_path / "nothing")


def test_the_wrong_class_is_named(model_directory):
    with pytest.raises(PartCLIPSegError, match="of type 'partclipseg', not 'clipseg-baseline'"):
        CLIPSegBaseline.from_pretrained(model_directory)


@pytest.mark.parametrize("layout", ["beside our model", "vocab.json and merges.txt"])
def test_a_tokenizer_loads_without_a_word(layout, model_directory, tokenizer_directory, tmp_path):
    """transformers warns of model types that it does not know, which users of ours could not make sense of."""
    directory = model_directory
    if layout != "beside our model":
        directory = tmp_path
        model = json.loads((tokenizer_directory / "tokenizer.json").read_text())["model"]
        (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
        (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append
    logging.getLogger("transformers").addHandler(handler)
    try:
        tokenizer = load_tokenizer(directory)
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert not said
    assert tokenizer("dog")["input_ids"] == [598, 67, 78, 164, 599]


def test_convert_command(released, config, tokenizer_directory, tmp_path, capsys):
    path, model, _ = released
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    arguments = [str(path), "--output", str(tmp_path / "out"), "--vocabulary", "dog: ear, tail", "--config"]
    arguments += [str(tmp_path / "config.json"), "--tokenizer", str(tokenizer_directory)]
    assert main(["convert", *arguments]) == 0
    assert "looked up as the released code does" in " ".join(capsys.readouterr().out.split())
    loaded = load_model(tmp_path / "out")
    assert torch.equal(loaded.background, model.background)
    assert Vocabulary.from_file(tmp_path / "out" / "vocabulary.json").names == ("dog's ear", "dog's tail")
    shutil.rmtree(tmp_path / "out")
    for there, said in (
        (Path.mkdir, "exists already"),
        (Path.touch, "is a file"),
        (lambda path: path.symlink_to("/nowhere/x"), "exists already"),
        (os.mkfifo, "is a file"),
    ):
        there(tmp_path / "out")
        assert main(["convert", *arguments]) == 2  # what is there is not overwritten
        assert said in capsys.readouterr().err
        (tmp_path / "out").rmdir() if (tmp_path / "out").is_dir() else (tmp_path / "out").unlink()


def test_an_untrained_class_film_is_a_copy_or_the_identity(clipseg_directory, tmp_path):
    copied = PartCLIPSegModel.from_start(str(clipseg_directory), PartCLIPSegSettings(class_film="copy"))
    film, class_film = copied.decoder.film, copied.decoder.class_film
    assert all(torch.equal(a, b) for a, b in zip(film.parameters(), class_film.parameters(), strict=True))

    plain = PartCLIPSegModel.from_start(str(clipseg_directory), PartCLIPSegSettings(class_film="identity"))
    features, words = torch.randn(2, 3, 5, plain.config.reduce_dim), torch.randn(3, plain.config.projection_dim)
    assert torch.equal(plain.decoder.class_film(features, words), features)
    assert not torch.equal(copied.decoder.class_film(features, words), features)
    rest = {name: tensor for name, tensor in plain.state_dict().items() if ".class_film." not in name}
    new = ("background", "visual_adapter.")  # drawn at random
    same = copied.state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in rest.items() if not name.startswith(new))

    # A model that has been trained keeps its own, whatever the settings say.
    with torch.no_grad():
        copied.decoder.class_film.add.bias.fill_(0.25)
    copied.save_pretrained(tmp_path / "trained")
    again = PartCLIPSegModel.from_start(str(tmp_path / "trained"), PartCLIPSegSettings(class_film="identity"))
    assert torch.equal(again.decoder.class_film.add.bias, copied.decoder.class_film.add.bias)


def test_from_the_identity_an_untrained_class_composes_the_maps_of_its_words(clipseg_directory):
    """Both words alike: the class's logits are then that word's own."""
    model = PartCLIPSegModel.from_start(str(clipseg_directory), PartCLIPSegSettings(class_film="identity"))
    vocabulary = Vocabulary.from_dict({"dog": ["ear"]})
    words = Words.of(vocabulary, torch.randn(1, model.config.projection_dim).expand(2, -1))
    with torch.no_grad():
        output = model.eval()({"pixel_values": torch.randn(1, 3, 64, 64)}, words)
    torch.testing.assert_close(output.object_part_logits[:, :1], output.part_logits, rtol=1e-4, atol=1e-5)
