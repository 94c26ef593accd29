"""The intended method: what must not depend on what, for both families on CLIPSeg; see also `tester`."""

import pytest
import torch
from tests.models.tester import REORDERED, random_words
from torch import nn

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.clipseg_decoder import DecoderLayer
from partclipseg.models.interface import Words
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.vocabulary import Vocabulary

WORDS = Vocabulary.from_dict({"dog": ["ear", "tail", "leg"], "bus": ["wheel", "door"], "cat": ["tail", "ear"]})


def run(model, pixels, vocabulary=WORDS, attention_pairs=None):
    with torch.no_grad():
        return model({"pixel_values": pixels}, random_words(model, vocabulary), attention_pairs)


@pytest.fixture(params=[PartCLIPSegModel, CLIPSegBaseline])
def model(request, config):
    return request.param(request.param.config_class(**config.to_dict())).eval()


@pytest.fixture
def partclipseg(config):
    return PartCLIPSegModel(config).eval()


def test_renaming_objects_moves_their_channels_only(partclipseg):
    """Words that sort differently change the order of the objects' channels, and nothing else."""
    pixels = torch.randn(1, 3, 64, 64)
    embeddings = random_words(partclipseg, WORDS).embeddings
    renamed = Vocabulary(tuple((f"z {o}" if o == "bus" else o, p) for o, p in WORDS.object_parts))
    parts = len(WORDS.parts)
    order = [WORDS.objects.index(word.removeprefix("z ")) for word in renamed.objects]
    moved = torch.cat([embeddings[:parts], embeddings[parts:][order]])
    with torch.no_grad():
        first = partclipseg({"pixel_values": pixels}, Words.of(WORDS, embeddings))
        second = partclipseg({"pixel_values": pixels}, Words.of(renamed, moved))
    torch.testing.assert_close(second.object_part_logits, first.object_part_logits, **REORDERED)
    torch.testing.assert_close(second.object_logits[:, :-1], first.object_logits[:, order], **REORDERED)


def test_a_class_does_not_depend_on_the_other_classes(model):
    pixels = torch.randn(1, 3, 64, 64)
    few = Vocabulary(WORDS.object_parts[:2])
    torch.testing.assert_close(
        run(model, pixels, few).object_part_logits[:, :2], run(model, pixels).object_part_logits[:, :2], **REORDERED
    )


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (80, 48), (16, 16), (70, 65)])
def test_any_photo_size(model, size):
    output = run(model, torch.randn(1, 3, *size))
    expected = (size[0] // 16 * 16, size[1] // 16 * 16)
    assert output.object_part_logits.shape == (1, len(WORDS) + 1, *expected)
    assert output.object_part_logits.isfinite().all()


def test_photos_below_one_patch_are_refused(model):
    with pytest.raises(PartCLIPSegError, match="at least 16x16"):
        run(model, torch.randn(1, 3, 15, 64))


def test_padding_of_the_prompts_has_no_effect(partclipseg):
    ids = torch.tensor([[598, 5, 9, 599], [598, 7, 599, 599]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    longer = torch.cat([ids, torch.full((2, 12), 599)], 1), torch.cat([mask, torch.zeros(2, 12, dtype=torch.long)], 1)
    with torch.no_grad():
        assert torch.equal(partclipseg.encode_text(ids, mask), partclipseg.encode_text(*longer))


def test_the_stamp_tells_of_new_tokens(model):
    before = model.weights_stamp()
    model.add_tokens(3)
    added = model.weights_stamp()
    with torch.no_grad():
        model.clip.text_model.embeddings.token_embedding.weight.mul_(2)
    assert len({before, added, model.weights_stamp()}) == 3


def test_blocks_past_the_last_used_one_are_not_run(partclipseg):
    ran = []
    for index, layer in enumerate(partclipseg.clip.vision_model.encoder.layers):
        layer.register_forward_hook(lambda *_, index=index: ran.append(index))
    run(partclipseg, torch.randn(1, 3, 64, 64))
    assert ran == [0, 1, 2, 3]  # the tower has five blocks


def test_each_photo_is_reduced_once(partclipseg):
    shapes = []
    for reduce in partclipseg.decoder.reduce:
        reduce.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    run(partclipseg, torch.randn(2, 3, 64, 64))
    assert shapes == [(2, 17, 32)] * 3  # not once for each of the conditions


def test_attention_of_chosen_pairs_only(partclipseg, monkeypatch):
    pixels = torch.randn(2, 3, 64, 64)
    assert run(partclipseg, pixels).attention is None
    every = torch.cartesian_prod(torch.arange(2), torch.arange(len(WORDS) + len(WORDS.objects)))
    held = []
    forward = DecoderLayer.forward
    monkeypatch.setattr(
        DecoderLayer, "forward", lambda self, x, rows=None: (held.append(rows), forward(self, x, rows))[1]
    )
    full = run(partclipseg, pixels, attention_pairs=every).attention
    assert held[:2] == [None, None]
    held.clear()
    chosen = torch.tensor([[1, 2], [0, len(WORDS) + 1]])  # (second photo, dog's leg), (first photo, second object)
    some = run(partclipseg, pixels, attention_pairs=chosen).attention
    assert len(held[2]) == 4  # a part and an object for each pair, however many words there are
    of_pair = [int((every == pair).all(1).nonzero()) for pair in chosen]
    torch.testing.assert_close(some, full[of_pair], **REORDERED)
    # Rows of attention are probabilities; float32 softmax sums to 1 within 1e-6.
    torch.testing.assert_close(full.sum(-1), torch.ones_like(full[..., 0]), atol=1e-5, rtol=0)


def test_attention_of_a_class_is_the_mean_of_part_and_object(partclipseg):
    """`leg` belongs to the dog only, so asking for two objects and two parts separates the halves."""
    pixels = torch.randn(1, 3, 64, 64)
    objects = len(WORDS) + torch.arange(3)  # bus, cat, dog
    pairs = torch.stack([torch.zeros(5, dtype=torch.long), torch.tensor([0, 6, *objects[[1, 2]], 0])], 1)
    dog_ear, cat_ear, cat, dog, again = run(partclipseg, pixels, attention_pairs=pairs).attention
    # dog's ear - cat's ear = (A_dog - A_cat) / 2: the part's own map cancels.
    torch.testing.assert_close(dog_ear - cat_ear, (dog - cat) / 2, **REORDERED)
    assert torch.equal(dog_ear, again)


def test_the_baseline_refuses_attention(config):
    baseline = CLIPSegBaseline(config)
    with pytest.raises(TypeError, match="no attention control"):
        run(baseline, torch.randn(1, 3, 64, 64), attention_pairs=torch.zeros(1, 2, dtype=torch.long))


def test_new_layers_start_as_wide_as_torch_makes_them(config):
    """Left alone, transformers would draw them with std 1.0 (`initializer_factor`)."""
    config.vision_config.hidden_size, config.vision_config.num_attention_heads = 256, 4
    config.reduce_dim, config.projection_dim = 64, 128
    model = PartCLIPSegModel(config)
    checked = 0
    for name, module in model.named_modules():
        if name.startswith(("clip.", "decoder.merge")) or not isinstance(
            module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d
        ):
            continue
        fan_in = module.weight[0].numel()
        # Samples of 256 and more entries: the estimate of a std is within 4/sqrt(2n) of it.
        expected = (3 * fan_in) ** -0.5
        assert abs(module.weight.std() / expected - 1) < 4 / (2 * module.weight.numel()) ** 0.5, name
        assert module.bias is None or module.bias.eq(0).all(), name
        checked += 1
    assert checked == 27
    assert 0.5 < model.background.norm() < 2
    assert model.clip.text_model.embeddings.token_embedding.weight.std() < 0.05
    model.decoder.randomise_merges()
    assert 0 < model.decoder.merge_features.weight.std() < 0.1


def test_a_trained_background_changes_its_channels(partclipseg):
    partclipseg.train_published_parameters()
    output = partclipseg({"pixel_values": torch.randn(1, 3, 64, 64)}, random_words(partclipseg, WORDS))
    (gradient,) = torch.autograd.grad(output.object_part_logits[:, -1].sum(), partclipseg.background)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
        ),
    ],
)
def test_the_relu_within_the_product(partclipseg, dtype, device, monkeypatch):
    layer = nn.Module.to(partclipseg, device, dtype).decoder.layers[0]
    weights = [*layer.expand.parameters(), *layer.contract.parameters()]
    found = []
    for fused in (False, True):
        monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self, fused=fused: fused))
        for autocast in (False, True):
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(3, 10, layer.contract.out_features, generator=generator).to(device, dtype).requires_grad_()
            with torch.autocast(device, torch.bfloat16, enabled=autocast):
                result = layer.feed_forward(x)
            gradients = torch.autograd.grad(result.float().square().sum(), [x, *weights])
            found.append([result, *gradients])
    for plain, ours, bits in ((found[0], found[2], dtype), (found[1], found[3], torch.bfloat16)):
        for expected, value in zip(plain, ours, strict=True):
            assert value.dtype == expected.dtype
            # Another kernel may add in another order; bfloat16 keeps 8 bits.
            tolerance = 1e-5 if bits == torch.float32 else 2e-2
            assert (value - expected).norm() <= tolerance * expected.norm()


def test_the_relu_product_leaves_adapters_their_say(partclipseg, monkeypatch):
    class Adapter(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) + 1

    layer = partclipseg.decoder.layers[0]
    x = torch.randn(3, 10, layer.contract.out_features)
    adapter = Adapter(layer.expand.in_features, layer.expand.out_features)
    monkeypatch.setattr(layer, "expand", adapter)
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
    expected = layer.contract(torch.relu(adapter(x)))
    torch.testing.assert_close(layer.feed_forward(x), expected)
