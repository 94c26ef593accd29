"""The tests that every family of models passes: inherit `FamilyTester` and give it a small model.

class TestMyFamily(FamilyTester):
    @pytest.fixture
    def model(self): ...
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from partclipseg.errors import UsageError
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.losses.labels import present_pairs
from partclipseg.maps.label_maps import LabelMaps
from partclipseg.maps.upsample import upsample
from partclipseg.models.interface import PartModel, Words
from partclipseg.models.registry import family, load_model, load_tokenizer
from partclipseg.vocabulary import Vocabulary

# Batched and single matrix products add up in another order; 2e-6 was seen.
REORDERED = {"atol": 1e-5, "rtol": 0}

TIE = 1e-5
"""Logits of these sizes (a few units) come out of matrix products of other shapes with differences of some 1e-6:
where the two best are closer than this, either may win."""


def random_words(model: Any, vocabulary: Vocabulary, scale: float = 1.0) -> Words:
    """A fixed random embedding for each prompt, the same whatever else is asked."""
    return Words.of(vocabulary, random_rows(model, model.prompts(vocabulary), scale))


def random_rows(model: Any, prompts: Sequence[str], scale: float = 1.0) -> Tensor:
    """A fixed random embedding `[K, D]` for each prompt."""
    token = torch.ones(1, 2, dtype=torch.long, device=model.device)
    with torch.no_grad():
        width = model.encode_text(token, token).shape[1]
    rows = []
    for prompt in prompts:
        generator = torch.Generator().manual_seed(sum(ord(c) * 31**i for i, c in enumerate(prompt)) % 2**31)
        rows.append(torch.randn(width, generator=generator))
    return (scale * torch.stack(rows)).to(model.device)


def random_vocabulary(generator: np.random.Generator, num_objects: int, num_parts: int) -> Vocabulary:
    """Up to `num_parts` parts for each object, in any order."""
    pairs = [
        (f"object{o}", f"part{p}")
        for o in range(num_objects)
        for p in generator.choice(num_parts, generator.integers(1, num_parts + 1), replace=False)
    ]
    generator.shuffle(pairs)
    return Vocabulary.from_names([tuple(map(str, pair)) for pair in pairs])


@torch.no_grad()
def smoothed(model: Any) -> Any:
    """The same model with heads as a trained one has them, if it has any.

    In random heads every fine pixel has weights of its own, and every object wins somewhere in every patch. Shared,
    and stronger, some objects win and others do not, other ones in every photo.
    """
    for layer in model.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            layer.weight.copy_(5 * layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
    return model


def is_tied(values: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Whether two labels, int64 `[H, W]`, have all but equal values of `[K, H, W]`; label -1 is the last one."""
    first, second = (labels.remainder(len(values))[None] for labels in (first, second))
    return (values.gather(0, first) - values.gather(0, second)).abs()[0] < TIE


def assert_same_maps(
    actual: Sequence[LabelMaps],
    expected: Sequence[LabelMaps],
    output: Any,
    sizes: Any,
    values: Callable[[Tensor, tuple[int, int]], Tensor] = upsample,
    gated: bool = True,
) -> None:
    """Equal maps at every pixel, but where the `output` has two best classes.

    `values` are what classes are compared by, of logits and a size; `gated`: by the objects first, where there are
    any.
    """
    for index, (ours, theirs, size) in enumerate(zip(actual, expected, sizes, strict=True)):
        assert ours.label_map.shape == size
        differs = ours.label_map != theirs.label_map
        tied = is_tied(values(output.object_part_logits[index], size), ours.label_map, theirs.label_map)
        if gated and output.object_logits is not None:
            objects = values(output.object_logits[index], size)
            other_object = ours.object_map != theirs.object_map
            tied = torch.where(other_object, is_tied(objects, ours.object_map, theirs.object_map), tied)
        assert not (differs & ~tied).any()
        assert differs.float().mean() < 0.01, "ties are rare"
        assert torch.equal(ours.object_map[~differs], theirs.object_map[~differs])
        torch.testing.assert_close(ours.scores[~differs], theirs.scores[~differs], atol=TIE, rtol=0)


def noise(*sizes: tuple[int, int]) -> list[np.ndarray]:
    """Photos of coarse random colours, uint8 `[H, W, 3]`."""
    generator = np.random.default_rng(0)
    return [
        generator.integers(0, 256, (h // 8 + 1, w // 8 + 1, 3), np.uint8).repeat(8, 0).repeat(8, 1)[:h, :w]
        for h, w in sizes
    ]


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """The values of a configuration without those that loading adds."""
    added = ("_name_or_path", "architectures", "transformers_version", "dtype")
    kept = {name: value for name, value in config.items() if name not in added}
    return {name: settings_of(value) if isinstance(value, dict) else value for name, value in kept.items()}


class FamilyTester:
    """Subclasses define the fixture `model`, and may define `tokenizer` and `vocabulary`."""

    @pytest.fixture
    def model(self, config) -> Any:
        """A small random model on the CPU in evaluation mode."""
        raise NotImplementedError

    @pytest.fixture
    def tokenizer(self, tokenizer_directory: Path) -> Any:
        return load_tokenizer(tokenizer_directory)

    @pytest.fixture
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.from_dict({"dog": ["ear", "tail", "leg"], "bus": ["wheel", "door"], "cat": ["tail", "ear"]})

    @pytest.fixture
    def photos(self) -> list[np.ndarray]:
        return noise((64, 64), (40, 90), (120, 33), (64, 64))

    @pytest.fixture
    def run(self, model, vocabulary, photos):
        """The output for photos and a vocabulary with fixed random embeddings."""

        def run(model=model, photos=photos, vocabulary=vocabulary):
            with torch.no_grad():
                return model(model.prepare(photos), random_words(model, vocabulary))

        return run

    values = staticmethod(upsample)
    """What a family compares its classes by, of logits `[K, h, w]` and a photo's size."""
    gated = True
    """Whether a family whose logits have objects lets only the classes of the best object win."""

    without_gradient: tuple[str, ...] = ()
    """Beginnings of the names of trained parameters that have no gradient yet when training begins."""

    def plain_maps(self, model, *arguments) -> list[LabelMaps]:
        """The family's rule of labels with every class decoded, as `PartModel.label_maps` takes its arguments."""
        return PartModel.label_maps(model, *arguments)

    # -- photos and words -------------------------------------------------------------------------------------

    def test_photos_of_several_sizes_are_prepared_as_one_by_one(self, model, photos):
        together = model.prepare(photos)
        for index, photo in enumerate(photos):
            for name, value in model.prepare([photo]).items():
                assert torch.equal(together[name][index], value[0])

    def test_photos_of_training_are_prepared_the_same(self, model, photos):
        square = np.stack([photos[0], photos[-1]])
        if square.shape[1:3] != model.image_shape:
            pytest.skip("the photos would be resized")
        tensor = torch.from_numpy(square).permute(0, 3, 1, 2)
        expected = model.prepare(list(square))
        for given_ in (tensor, tensor / 255):
            for name, value in model.prepare(given_).items():
                torch.testing.assert_close(value, expected[name], rtol=0, atol=0)

    def test_every_prompt_has_an_embedding(self, model, tokenizer, vocabulary):
        for words in (vocabulary, Vocabulary.from_names(["dog's ear"])):
            prompts = model.prompts(words)
            tokens = tokenizer(prompts, padding=True, return_tensors="pt")
            embeddings = model.encode_text(tokens["input_ids"], tokens["attention_mask"])
            assert embeddings.ndim == 2
            assert len(embeddings) == len(prompts) == len(set(prompts))
            assert embeddings.isfinite().all()

    # -- logits -----------------------------------------------------------------------------------------------

    def test_a_batch_equals_single_photos(self, run, photos):
        together = run()
        for index, photo in enumerate(photos):
            alone = run(photos=[photo])
            for name in together:
                torch.testing.assert_close(together[name][index], alone[name][0], **REORDERED)

    def test_permuting_the_words_permutes_the_outputs(self, run, vocabulary):
        order = torch.randperm(len(vocabulary))
        first, second = run(), run(vocabulary=Vocabulary(tuple(vocabulary.object_parts[index] for index in order)))
        torch.testing.assert_close(second.object_part_logits[:, :-1], first.object_part_logits[:, order], **REORDERED)
        torch.testing.assert_close(second.object_part_logits[:, -1], first.object_part_logits[:, -1], **REORDERED)
        if first.object_logits is not None:
            torch.testing.assert_close(second.object_logits, first.object_logits, **REORDERED)
        if first.part_logits is not None:
            torch.testing.assert_close(second.part_logits, first.part_logits, **REORDERED)

    def test_one_object_one_part(self, run):
        assert run(vocabulary=Vocabulary.from_names(["dog's ear"])).object_part_logits.shape[1] == 2

    def test_the_size_of_the_logits_is_known(self, model, vocabulary, photos, run):
        found = model.logits_size(model.prepare(photos), random_words(model, vocabulary))
        assert found == run().object_part_logits.shape[-2:]

    def test_bfloat16_is_close(self, model, run):
        exact = run().object_part_logits
        rough = run(nn.Module.to(model, torch.bfloat16)).object_part_logits
        assert rough.dtype == torch.bfloat16
        # bfloat16 keeps 8 bits: half a percent a step, some ten steps deep.
        assert (rough.float() - exact).norm() < 0.05 * exact.norm()

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_cuda_equals_cpu(self, model, run):
        expected = run().object_part_logits
        actual = run(nn.Module.to(model, "cuda")).object_part_logits.cpu()
        # Convolutions may run in TF32 on the GPU, which cuts numbers to 10 bits: 2.4e-3 was seen with cut numbers.
        assert (actual - expected).norm() < 1e-2 * expected.norm()

    # -- part words without an object --------------------------------------------------------------------------

    def test_part_words_without_an_object(self, model, photos):
        """The maps name the best of the words and background, or the family says that it needs objects."""
        sizes, inputs = [photo.shape[:2] for photo in photos], model.prepare(photos)
        embeddings = random_rows(model, model.word_prompts(["ear", "tail"]))
        if type(model).part_word_logits is PartModel.part_word_logits:
            with pytest.raises(UsageError, match="name the object of every part"):
                model.word_maps(inputs, embeddings, sizes)
            return
        with torch.no_grad():
            logits = model.part_word_logits(inputs, embeddings)
        for index, (words, scores) in enumerate(model.word_maps(inputs, embeddings, sizes)):
            values = upsample(logits[index], sizes[index])
            best, winner = values.max(0)
            clear = values.sort(0).values.diff(dim=0)[-1] > TIE
            none = winner == 2
            if len(values) == 2:  # a family without background has a threshold
                threshold = model.prompting.threshold
                clear, none = clear & ((best.sigmoid() - threshold).abs() > TIE), best.sigmoid() < threshold
            assert torch.equal(words[clear], winner.masked_fill(none, -1)[clear])
            torch.testing.assert_close(scores[clear], best.sigmoid()[clear], atol=TIE, rtol=0)

    # -- label maps -------------------------------------------------------------------------------------------

    # Fixtures are made once for all examples, which change nothing of them; each family is an executor of its own.
    # Shrinking a failure would take minutes.
    @settings(
        max_examples=25,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(
        seed=st.integers(0, 10_000),
        counts=st.tuples(st.integers(1, 6), st.integers(1, 6)),
        sizes=st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=3),
        protocol=st.sampled_from(["pred_all", "oracle_obj", "with_background"]),
    )
    def test_its_label_maps_are_the_plain_ones(self, model, seed, counts, sizes, protocol):
        generator, model = np.random.default_rng(seed), smoothed(copy.deepcopy(model))
        torch.manual_seed(seed)
        vocabulary = random_vocabulary(generator, *counts)
        inputs = model.prepare(noise(*sizes))
        inputs = {
            name: value + 0.1 * torch.randn_like(value) if value.is_floating_point() else value
            for name, value in inputs.items()
        }
        words, present = random_words(model, vocabulary, 3), None
        if protocol != "pred_all":  # no object at all among them
            present = [np.flatnonzero(generator.random(len(vocabulary.objects)) < 0.5).tolist() for _ in sizes]
        arguments = inputs, words, sizes, present, protocol == "with_background"
        with torch.inference_mode():
            expected, output = self.plain_maps(model, *arguments), model(inputs, words)
        assert_same_maps(model.label_maps(*arguments), expected, output, sizes, self.values, self.gated)
        for maps, named in zip(expected, present or [], strict=False):
            assert set(maps.object_map.unique().tolist()) <= {*named, -1}

    def test_several_classes_win_in_such_maps(self, model):
        """Otherwise the property above would compare background with background."""
        vocabulary, sizes = random_vocabulary(np.random.default_rng(0), 6, 6), [(64, 64), (50, 70)]
        maps = smoothed(model).label_maps(model.prepare(noise(*sizes)), random_words(model, vocabulary, 3), sizes)
        assert len(set().union(*(found.label_map.unique().tolist() for found in maps))) >= 2

    # -- weights ----------------------------------------------------------------------------------------------

    def test_save_and_load_is_bit_equal(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        assert family(model.config.model_type) is type(model)
        assert type(AutoConfig.from_pretrained(tmp_path)) is type(model.config)
        for loaded in (load_model(tmp_path), AutoModel.from_pretrained(tmp_path)):
            assert type(loaded) is type(model)
            assert settings_of(loaded.config.to_dict()) == settings_of(model.config.to_dict())
            assert loaded.state_dict().keys() == model.state_dict().keys()
            for name, tensor in model.state_dict().items():
                assert torch.equal(loaded.state_dict()[name], tensor), name

    def test_a_copy_stands_alone(self, model, run):
        before = run().object_part_logits
        copied = copy.deepcopy(model)
        assert torch.equal(run(copied).object_part_logits, before)
        with torch.no_grad():
            for parameter in copied.parameters():
                parameter.mul_(1.5)
        assert not torch.equal(run(copied).object_part_logits, before)
        assert torch.equal(run().object_part_logits, before)

    def test_the_stamp_tells_of_every_change(self, model):
        stamps = [model.weights_stamp()]
        assert model.weights_stamp() == stamps[0]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)
                stamps.append(model.weights_stamp())
        model.load_state_dict(model.state_dict())
        stamps.append(model.weights_stamp())
        for parameter in (next(model.parameters()), list(model.parameters())[-1]):
            parameter.data = parameter.data.clone()
            stamps.append(model.weights_stamp())
            parameter.data.mul_(1.5)  # which PyTorch does not count
            model.renew_stamp()
            stamps.append(model.weights_stamp())
        nn.Module.to(model, torch.bfloat16)
        stamps.append(model.weights_stamp())
        assert len(set(stamps)) == len(stamps)

    def test_embeddings_follow_the_text_weights(self, model, tokenizer, vocabulary, photos):
        segmenter = PartSegmenter(model, tokenizer)
        before = segmenter(photos[0], vocabulary)
        embeddings = segmenter.text_embeddings(model.prompts(vocabulary))
        assert segmenter.text_embeddings(model.prompts(vocabulary)) is embeddings
        tokens = tokenizer(model.prompts(vocabulary), padding=True, return_tensors="pt")
        with torch.enable_grad():
            encoded = model.encode_text(tokens["input_ids"], tokens["attention_mask"])
            parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
            gradients = torch.autograd.grad(encoded.square().sum(), parameters, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    parameter.add_(torch.randn_like(parameter))
        after, fresh = segmenter(photos[0], vocabulary), PartSegmenter(model, tokenizer)(photos[0], vocabulary)
        assert not np.array_equal(after.scores, before.scores)
        assert np.array_equal(after.scores, fresh.scores)
        assert np.array_equal(after.label_map, fresh.label_map)

    # -- training ---------------------------------------------------------------------------------------------

    def test_every_trained_parameter_gets_a_gradient(self, model, tokenizer, vocabulary):
        method = model.settings_class()
        trained, loss = model.train().trained_parameters(method), model.build_loss(method)
        assert [id(p) for p in trained] == [id(p) for p in model.parameters() if p.requires_grad]
        parts = torch.arange(len(vocabulary) + 1).repeat(2, 64, 64)[:, :, :64] - 1  # every class, and background
        objects = torch.where(parts >= 0, torch.from_numpy(vocabulary.class_to_object)[parts.clamp(min=0)], -1)
        tokens = tokenizer(model.prompts(vocabulary), padding=True, return_tensors="pt")
        words = Words.of(vocabulary, model.encode_text(tokens["input_ids"], tokens["attention_mask"]))
        pairs = present_pairs(parts, len(vocabulary)) if loss.needs_attention else None
        output = model(model.prepare(noise((64, 64), (64, 64))), words, attention_pairs=pairs)
        loss(output, parts, objects, words.class_to_part, words.class_to_object, pairs)["total"].backward()
        names = {
            name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
        }
        assert {name for name in names if not name.startswith(self.without_gradient)} == set()
        assert all(parameter.grad is None for parameter in model.parameters() if not parameter.requires_grad)

    # -- speed ------------------------------------------------------------------------------------------------

    def test_layers_compile_without_a_graph_break(self, model, run):
        expected = run().object_part_logits
        # One of each kind: the others are traced in the same way.
        kinds = {(type(one), *(weight.shape for weight in one.parameters())): one for one in model.repeated_layers()}
        torch.compiler.reset()
        for layer in kinds.values():
            layer.compile(backend="eager", fullgraph=True)
        # Logits of order 1: a layer may sum in the order that suits the compiler.
        torch.testing.assert_close(run().object_part_logits, expected, atol=1e-5, rtol=1e-5)
        torch.compiler.reset()

    def test_the_forward_pass_compiles_without_a_graph_break(self, model, vocabulary, photos, tokenizer):
        inputs = model.prepare(photos)
        tokens = tokenizer(model.prompts(vocabulary), padding=True, return_tensors="pt")
        indices = random_words(model, vocabulary)

        def answer(ids, mask):
            words = Words(vocabulary, model.encode_text(ids, mask), indices.class_to_part, indices.class_to_object)
            return model(inputs, words)

        torch.compiler.reset()
        with torch.no_grad():
            expected = answer(tokens["input_ids"], tokens["attention_mask"])
            actual = torch.compile(answer, backend="eager", fullgraph=True)(
                tokens["input_ids"], tokens["attention_mask"]
            )
        torch.compiler.reset()
        for name in expected:
            torch.testing.assert_close(actual[name], expected[name], atol=1e-5, rtol=1e-5)
