"""A small random PartCATSeg and CAT-Seg, their words and photos."""

from __future__ import annotations

import numpy as np
import torch

from partclipseg.models.interface import Words
from partclipseg.models.partcatseg.config import PartCATSegConfig
from partclipseg.models.partcatseg.model import CATSegModel, PartCATSegModel
from partclipseg.vocabulary import Vocabulary


def small_config(config_class=PartCATSegConfig, **changes):
    """A configuration of some 50,000 parameters with everything that the real one has."""
    dinov2 = {
        "model_type": "dinov2",
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_ratio": 2,
        "image_size": 42,
    }
    resnet = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 24], "depths": [1, 1, 1]}
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    values = {
        "clip_config": {
            "projection_dim": 16,
            "text_config": {
                **tower,
                "vocab_size": 600,
                "max_position_embeddings": 24,
                "bos_token_id": 598,
                "eos_token_id": 599,
                "pad_token_id": 599,
            },
            "vision_config": {**tower, "image_size": 48, "patch_size": 16},
        },
        "guidance_config": dinov2 if config_class is PartCATSegConfig else resnet,
        "image_size": 64,
        "guidance_image_size": 56 if config_class is PartCATSegConfig else 64,
        "shortest_edge": 70,
        "longest_edge": 100,
        "templates": ["a photo of a {}.", "the {}."],
        "hidden_dim": 16,
        "num_heads": 2,
        "window_size": 2,
        "text_guidance_dim": 8,
        "appearance_guidance_dim": 8,
        "decoder_dims": [16, 16],
        "decoder_guidance_dims": [8, 8],
    }
    return config_class(**{**values, **changes})


VOCABULARY = Vocabulary.from_dict({"chair": ["leg", "seat"], "swivel chair": ["seat", "wheel"], "dog": ["leg", "ear"]})


def build(config):
    """A random model whose layers all have an effect: fresh biases are zero and hide mistakes."""
    torch.manual_seed(3)
    model = (PartCATSegModel if type(config) is PartCATSegConfig else CATSegModel)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()


def random_words(model, vocabulary: Vocabulary = VOCABULARY):
    """A vocabulary with random unit vectors for its prompts."""
    generator = torch.Generator().manual_seed(5)
    width = model.config.clip_config.projection_dim
    embeddings = torch.randn(len(model.prompts(vocabulary)), width, generator=generator)
    return Words.of(vocabulary, torch.nn.functional.normalize(embeddings, dim=-1).to(model.dtype))


def random_photos(*sizes: tuple[int, int]) -> list[np.ndarray]:
    generator = np.random.default_rng(7)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def resized_probabilities(logits, size, seen=None):
    """Probabilities, of the first `seen` pixels if given, then resized: `[K, h, w]` → `[K, H, W]`."""
    probabilities = logits.sigmoid() if seen is None else logits.sigmoid()[:, : seen[0], : seen[1]]
    return torch.nn.functional.interpolate(probabilities[None], size, mode="bilinear", align_corners=False)[0]
