"""The segmenter, with small random models of both kinds."""

from __future__ import annotations

import copy
import io
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from functools import partialmethod

import numpy as np
import pytest
import torch
from PIL import Image
from tests.turns import Turns
from torch import nn

from partclipseg.data.photo import PhotoError
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.inference.result import PartResult
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.maps.label_maps import oracle_obj, pred_all
from partclipseg.maps.upsample import upsample
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.interface import Words
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.registry import find_dtype
from partclipseg.shapes.renderer import render_scene
from partclipseg.shapes.world import partshapes_world
from partclipseg.vocabulary import Vocabulary

WORDS = {"dog": ["ear", "head"], "bus": ["wheel", "door"]}


@pytest.fixture
def photos() -> list[np.ndarray]:
    """Four photos of different sizes, smooth enough to have regions."""
    generator = np.random.default_rng(0)
    coarse = [generator.integers(0, 255, (4, 5, 3), np.uint8) for _ in range(4)]
    sizes = [(80, 60), (33, 64), (64, 64), (120, 97)]
    pairs = zip(coarse, sizes, strict=True)
    return [np.asarray(Image.fromarray(c).resize(size, Image.Resampling.BICUBIC)) for c, size in pairs]


@pytest.fixture(params=[PartCLIPSegModel, CLIPSegBaseline])
def segmenter(request, config, tokenizer_directory):
    from transformers import AutoTokenizer

    model = request.param(request.param.config_class(**config.to_dict()))
    return PartSegmenter(model, AutoTokenizer.from_pretrained(tokenizer_directory))


def test_a_batch_equals_single_runs(segmenter, photos):
    together = segmenter(photos, WORDS, batch_size=4)
    for photo, batched in zip(photos, together, strict=True):
        alone = segmenter(photo, WORDS)
        assert isinstance(alone, PartResult)
        assert alone.size == batched.size == photo.shape[:2]
        # A batch adds up in another order: where two classes tie to 1e-6, a pixel may fall to the other one.
        assert np.mean(alone.label_map != batched.label_map) < 1e-3
        np.testing.assert_allclose(alone.scores, batched.scores, atol=1e-3)


def test_photos_keep_their_order_over_batches(segmenter, photos):
    results = segmenter(tuple(photos), WORDS, batch_size=3)
    assert [result.size for result in results] == [photo.shape[:2] for photo in photos]
    assert segmenter([], WORDS) == []


def test_the_label_map_is_that_of_the_models_logits(segmenter, photos):
    vocabulary = Vocabulary.from_dict(WORDS)
    tokens = segmenter.tokenizer(segmenter.model.prompts(vocabulary), padding=True, return_tensors="pt")
    # The normalisation of the method, written out for one photo that needs no resizing.
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((torch.tensor(photos[2]) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        embeddings = segmenter.model.encode_text(tokens["input_ids"], tokens["attention_mask"])
        output = segmenter.model({"pixel_values": pixels}, Words.of(vocabulary, embeddings))
    (expected,) = pred_all(output, [(64, 64)], vocabulary.class_to_object)
    result = segmenter(photos[2], vocabulary, min_part_probability=0)
    assert np.mean(result.label_map != expected.label_map.numpy()) < 1e-3  # as above
    assert np.array_equal(result.photo, photos[2])


def test_large_photos_are_averaged_not_sampled(segmenter):
    """Every second pixel black and white: a bilinear filter that only samples would give black or white."""
    board = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    values = segmenter.prepare([np.repeat(board[:, :, None], 3, axis=2)])["pixel_values"]
    assert values.shape == (1, 3, 64, 64)
    grey = (0.5 - 0.485) / 0.229
    assert (values[0, 0] - grey).abs().max() < 0.05  # two grey levels, in units of the standard deviation


def test_known_objects_share_every_pixel(segmenter, photos):
    result = segmenter(photos[0], WORDS, objects=["Bus"])
    vocabulary = result.vocabulary
    assert set(np.unique(result.object_map)) == {vocabulary.objects.index("bus")}
    assert {vocabulary.object_parts[i].object for i in np.unique(result.label_map)} == {"bus"}


def test_a_word_is_encoded_once(segmenter, monkeypatch, photos):
    encoded: list[int] = []
    encode_text = segmenter.model.encode_text

    def counting(input_ids, attention_mask):
        encoded.append(len(input_ids))
        return encode_text(input_ids, attention_mask)

    monkeypatch.setattr(segmenter.model, "encode_text", counting)
    segmenter(photos[0], {"dog": ["ear", "head"]})
    segmenter(photos[1], {"dog": ["head", "ear"]})
    segmenter(photos[1], {"dog": ["head", "ear", "tail"]})
    first = 3 if isinstance(segmenter.model, PartCLIPSegModel) else 2
    assert encoded == [first, 1]


def test_words_are_forgotten_before_they_fill_the_memory(segmenter, monkeypatch, photos):
    monkeypatch.setattr("partclipseg.inference.segmenter.KEPT_PROMPTS", 5)
    first = segmenter(photos[0], "dog: ear, tail")
    for number in range(6):
        segmenter(photos[0], f"dog: ear; o{number}: a{number}, b{number}")
        assert 2 <= segmenter.kept_prompts <= 5
    assert np.array_equal(segmenter(photos[0], "dog: ear, tail").label_map, first.label_map)


def test_kept_words_do_not_change_the_result(segmenter, photos):
    fresh = segmenter(photos[0], WORDS)
    segmenter(photos[0], {"horse": ["mane"], **WORDS})
    assert np.array_equal(segmenter(photos[0], WORDS).label_map, fresh.label_map)


def test_threads_may_share_a_segmenter(segmenter, photos, monkeypatch):
    """One call after the other uses the model, the tokenizer and what is kept of words: each gets its own answer."""
    asked = [{"dog": ["ear", "head"], f"bus{'s' * number}": [f"p {number}"]} for number in range(4)]
    alone = [segmenter(photos[0], words).label_map for words in asked]
    kind, turns = type(segmenter.model), Turns()
    for method in ("encode_text", "label_maps"):
        monkeypatch.setattr(kind, method, turns.watched(getattr(kind, method)))

    def ask(number: int) -> None:
        for turn in range(5):
            np.testing.assert_array_equal(segmenter(photos[0], asked[number]).label_map, alone[number])
            segmenter(photos[0], {"dog": [f"new{'s' * number} {turn}"]})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    assert set(turns.counts) == {1}


def test_threads_may_ask_for_embeddings(segmenter, monkeypatch):
    """Another thread's words do not make a call forget its own before it has used them."""
    monkeypatch.setattr("partclipseg.inference.segmenter.KEPT_PROMPTS", 2)
    segmenter.text_embeddings(["ear"])
    encode, others = segmenter.model.encode_text, []

    def encode_text(*arguments):
        if not others:
            others.append(pool.submit(segmenter.text_embeddings, ["leg", "tail"]))
            wait(others, 0.2)
        return encode(*arguments)

    monkeypatch.setattr(segmenter.model, "encode_text", encode_text)
    with ThreadPoolExecutor(1) as pool:
        found = segmenter.text_embeddings(["ear", "head"])
        others[0].result()
    torch.testing.assert_close(found, segmenter.text_embeddings(["ear", "head"]))


def test_copies_and_pickles_answer_as_the_segmenter_does(segmenter, photos):
    found = segmenter(photos[0], WORDS).label_map
    for other in (copy.deepcopy(segmenter), pickle.loads(pickle.dumps(segmenter))):
        np.testing.assert_array_equal(other(photos[0], WORDS).label_map, found)


def test_a_stream_goes_past_bad_photos(segmenter, photos, tmp_path):
    paths = []
    for index, photo in enumerate(photos):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(photo).save(paths[-1])
    paths[1].write_bytes(b"no photo")
    paths.append(tmp_path / "missing.png")
    answers = list(segmenter.segment_many(iter(paths), WORDS, batch_size=2))
    assert [path for path, _ in answers] == paths
    assert [isinstance(answer, PartResult) for _, answer in answers] == [True, False, True, True, False]
    assert "1.png" in str(answers[1][1])
    assert answers[2][1].name == str(paths[2])
    assert np.array_equal(answers[2][1].photo, photos[2])


def test_one_bad_photo_in_a_list_is_an_error(segmenter, photos):
    with pytest.raises(PhotoError, match="the given bytes"):
        segmenter([photos[0], b"junk"], WORDS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objects": ["cat"]}, "'cat' is not an object of the vocabulary"),
        ({"objects": "dog"}, "objects must be a list of words"),
        ({"objects": []}, "the list of objects is empty"),
        ({"vocabulary": None}, "no words of its own"),
        ({"vocabulary": {"dog": []}}, "'dog' has no part"),
        ({"vocabulary": {"dog": ["e" * 40]}}, "tokens long, more than 24"),
        ({"batch_size": 0}, "batch size must be at least 1"),
        ({"fast_reading": True, "zoom": True}, "fast reading cannot be used here, since zoom looks at photos"),
        ({"fast_reading": True, "instances": "components"}, "since instances look at photos at their own size"),
    ],
)
def test_wrong_calls(segmenter, photos, options, words):
    with pytest.raises(UsageError, match=words):
        segmenter(photos, **{"vocabulary": WORDS, **options})
    with pytest.raises(UsageError, match=words):
        list(segmenter.segment_many(photos, **{"vocabulary": WORDS, **options}))


# -- loading --------------------------------------------------------------------------------------------------


def test_from_pretrained(model_directory, photos):
    segmenter = PartSegmenter.from_pretrained(model_directory)
    assert isinstance(segmenter.model, PartCLIPSegModel)
    assert not segmenter.model.training
    assert segmenter(photos[0], WORDS).size == (60, 80)


def test_the_baseline_loads_the_same_way(config, tokenizer_directory, tmp_path, photos):
    CLIPSegBaseline(CLIPSegBaseline.config_class(**config.to_dict())).save_pretrained(tmp_path)
    shutil.copytree(tokenizer_directory, tmp_path, dirs_exist_ok=True)
    segmenter = PartSegmenter.from_pretrained(tmp_path)
    assert isinstance(segmenter.model, CLIPSegBaseline)
    assert segmenter(photos[0], WORDS).size == (60, 80)


def test_bfloat16(model_directory, photos):
    segmenter = PartSegmenter.from_pretrained(model_directory, dtype="bfloat16")
    assert segmenter.model.dtype == torch.bfloat16
    assert segmenter(photos[0], WORDS).scores.dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_compiled_layers_find_the_same(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    scenes = [render_scene("test", index, 128).image for index in range(6)]
    plain, compiled = (PartSegmenter.from_pretrained(device=device, compile=way) for way in (False, True))
    expected = plain(scenes, batch_size=4)
    for _ in range(3):  # as it is, captured, replayed
        for ours, its in zip(compiled(scenes, batch_size=4), expected, strict=True):
            # bfloat16 on GPUs rounds after other operations: pixels between two nearly equal classes change sides.
            assert np.mean(ours.label_map == its.label_map) > (0.9999 if device == "cpu" else 0.99)


def test_few_variants_of_a_layer_serve_all_batches_and_words(monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))  # traced alone
    scenes = [render_scene("test", index, 128).image for index in range(5)]
    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=4, fail_on_recompile_limit_hit=True):
        segmenter = PartSegmenter.from_pretrained(device="cpu", compile=True)
        for words in ("dog: ear", "dog: ear, tail, leg; cat: head", "car: wheel; bus: wheel, door; chair: seat"):
            for number in (1, 2, 5):
                segmenter(scenes[:number], words)
            segmenter(scenes[:2], words, objects=[words.partition(":")[0]])
    torch.compiler.reset()


def test_where_nothing_can_be_compiled(model_directory, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("Cannot find a working triton installation.\nmore")

    monkeypatch.setattr(torch, "compile", lambda function: fail)
    with pytest.raises(PartCLIPSegError, match=r"leave compiling out: Cannot find a working triton installation\.$"):
        PartSegmenter.from_pretrained(model_directory, compile=True)


def test_the_words_that_a_model_came_with(model_directory, tmp_path, photos):
    shutil.copytree(model_directory, tmp_path, dirs_exist_ok=True)
    Vocabulary.from_dict(WORDS).save(tmp_path / "vocabulary.json")
    assert PartSegmenter.from_pretrained(tmp_path)(photos[0]).vocabulary == Vocabulary.from_dict(WORDS)


def test_words_that_a_word_list_lacks_are_named(config, caplog, photos):
    from partclipseg.shapes.tokenizer import build_tokenizer

    tokenizer = build_tokenizer(["dog", "ear", "head"], 24)
    text = config.text_config.to_dict()
    text |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    model = PartCLIPSegModel(type(config)(**{**config.to_dict(), "text_config": text}))
    PartSegmenter(model, tokenizer)(photos[0], {"dog": ["ear", "proboscis"]})
    assert "proboscis" in caplog.text
    assert "ear," not in caplog.text


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"device": "cuda:99"}, UsageError, "no device 'cuda:99'"),
        ({"device": "toaster"}, UsageError, "no device 'toaster'"),
        ({"dtype": "int4"}, UsageError, "unknown dtype 'int4': choose from float32, bfloat16, float16, int8"),
    ],
)
def test_wrong_devices_and_types(model_directory, options, error, words):
    with pytest.raises(error, match=words):
        PartSegmenter.from_pretrained(model_directory, **options)


def test_a_directory_without_a_tokenizer(model_directory, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(model_directory / name, tmp_path)
    with pytest.raises(PartCLIPSegError, match="has no tokenizer"):
        PartSegmenter.from_pretrained(tmp_path)


def test_the_built_in_model_has_a_name(model_directory, tmp_path, monkeypatch):
    from partclipseg.models import fetch

    monkeypatch.setattr(fetch, "built_in_model", lambda: str(model_directory))
    monkeypatch.chdir(tmp_path)
    expected = PartSegmenter.from_pretrained().model.background
    assert torch.equal(PartSegmenter.from_pretrained("partshapes").model.background, expected)
    (tmp_path / "partshapes").mkdir()  # a directory of that name comes first
    with pytest.raises(PartCLIPSegError, match=r"no config\.json"):
        PartSegmenter.from_pretrained("partshapes")


def test_without_a_name_the_built_in_model_is_loaded_in_float32():
    segmenter = PartSegmenter.from_pretrained(device="cpu")
    assert {tensor.dtype for tensor in segmenter.model.parameters()} == {torch.float32}  # its file has 16 bits
    scene = render_scene("test", 2, 128)
    result = segmenter(scene.image)  # its own words, those of the rendered world
    assert result.vocabulary == partshapes_world().vocabulary
    assert np.mean(result.label_map == scene.parts) > 0.9
    assert {segment.object for segment in result.segments()} == {"bus"}


def test_a_checkpoint_file_is_sent_to_convert(tmp_path):
    (tmp_path / "model.pth").write_bytes(b"x")
    with pytest.raises(PartCLIPSegError, match="partclipseg convert"):
        PartSegmenter.from_pretrained(tmp_path / "model.pth")


def test_a_name_that_cannot_be_reached(monkeypatch, caplog):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PartCLIPSegError, match="give a model's directory"):
        PartSegmenter.from_pretrained("nobody/partclipseg-nothing")
    assert caplog.messages == [
        "there is no directory nobody/partclipseg-nothing; asking the Hugging Face hub for a model of that name"
    ]


def test_golden_photo_to_label_map(golden, tokenizer_directory):
    """From the reference's own pixels and weights through our model and label maps to its predictions."""
    model, vocabulary = golden.model(), golden.vocabulary("test")
    with torch.no_grad():
        output = model(golden.inputs("test"), golden.words(model, "test"))
    size = tuple(golden.meta["photo_size"])
    (maps,) = pred_all(output, [size], vocabulary.class_to_object)
    expected = golden.tensors["test.pred_all_scores"].argmax(0)
    expected[expected == len(vocabulary)] = -1
    assert torch.equal(maps.label_map, expected)

    words = golden.meta["test_objects"]  # of the label maps, objects without parts among them
    present = [words[label] for label in golden.tensors["test.object_labels"].unique().tolist() if label < len(words)]
    known = [vocabulary.object_index(word) for word in present if word in vocabulary.objects]
    (maps,) = oracle_obj(output, [size], vocabulary.class_to_object, [known])
    assert torch.equal(maps.label_map, golden.tensors["test.oracle_scores"].argmax(0))

    label_of = torch.tensor([*(words.index(word) for word in vocabulary.objects), len(words)])
    assert torch.equal(label_of[upsample(output.object_logits[0], size).argmax(0)], golden.tensors["test.object_map"])
    parts = upsample(output.part_logits[0], size).argmax(0)
    assert torch.equal(parts, golden.tensors["test.part_scores"].argmax(0))


def test_results_of_files_carry_their_name(segmenter, photos):
    buffer = io.BytesIO()
    Image.fromarray(photos[0]).save(buffer, format="PNG")
    assert segmenter(buffer.getvalue(), WORDS).name == "photo"
    assert segmenter(Image.fromarray(photos[0]), WORDS).name == "photo"


@pytest.mark.parametrize(
    ("device", "supported", "expected"),
    [("cpu", True, torch.float32), ("cuda", True, torch.bfloat16), ("cuda", False, torch.float32)],
)
def test_bfloat16_is_the_default_on_gpus_that_have_it(monkeypatch, device, supported, expected):
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert find_dtype(None, torch.device(device)) == expected
    assert find_dtype("float32", torch.device(device)) == torch.float32


def test_a_stream_holds_three_batches_and_no_more(segmenter, photos):
    drawn: list[int] = []

    def endless():
        while True:
            drawn.append(len(drawn))
            yield photos[0]

    stream = segmenter.segment_many(endless(), WORDS, batch_size=2)
    assert drawn == []
    next(stream)
    assert len(drawn) == 6  # results of one, the model at work on another, and photos of a third
    stream.close()  # must not wait for photos that nobody will ask for
    assert len(drawn) == 6
