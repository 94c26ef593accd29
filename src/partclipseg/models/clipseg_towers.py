"""The base class of the families on CLIPSeg: CLIP's two towers, the visual adapter, the background word."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPSegConfig
from transformers.models.clipseg.modeling_clipseg import CLIPSegModel

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.clipseg_config import CLIPSegTowersConfig
from partclipseg.models.clipseg_decoder import ConditionDecoder, DecoderLayer, UpsamplingHead
from partclipseg.models.cuda_graphs import Graphs
from partclipseg.models.directory import read_config
from partclipseg.models.initialisation import init_as_torch, init_unit_vector
from partclipseg.models.int8 import one_pass_gelu, quantise
from partclipseg.models.interface import Inputs, PartModel, Words
from partclipseg.models.positions import ResizedPositions, stamp_of
from partclipseg.models.tokens import add_token_embeddings

WIDE = 1024
"""Minimum width of the decoder's hidden layers for int8: rounding the values of narrower ones takes what it saves."""


class VisualAdapter(nn.Module):
    """Bottleneck added to the extracted activations: `V → V/4 → V`, ReLU after both, no biases."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio
        self.down = nn.Linear(width, width // 4, bias=False)
        self.up = nn.Linear(width // 4, width, bias=False)

    def forward(self, activation: Tensor) -> Tensor:
        """Compute `(1 - ratio)·a + ratio·relu(up(relu(down(a))))` of activations `a [B, T, V]`, in the same shape."""
        return (1 - self.ratio) * activation + self.ratio * F.relu(self.up(F.relu(self.down(activation))))


class CLIPSegTowers(PartModel):
    """Photos to activations and words to embeddings; the subclasses decode them."""

    config_class: Any = CLIPSegTowersConfig
    config: CLIPSegTowersConfig
    _supports_sdpa = True
    _no_split_modules = ["CLIPSegEncoderLayer"]  # noqa: RUF012  (transformers' own convention)

    decoder: ConditionDecoder

    def __init__(self, config: CLIPSegTowersConfig) -> None:
        super().__init__(config)
        self.clip = CLIPSegModel(config)
        self.visual_adapter = VisualAdapter(config.vision_config.hidden_size, config.visual_adapter_ratio)
        self.background = nn.Parameter(torch.empty(1, config.projection_dim))
        self._resized = ResizedPositions()
        self._graphs = Graphs()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # The towers bring their own initialisation.
        init_as_torch(module)
        if isinstance(module, CLIPSegTowers):
            init_unit_vector(module.background)
            # Here, not in a branch of its own: transformers passes over modules without parameters of their own.
            module.decoder.initialise_composition()

    # -- words and photos -------------------------------------------------------------------------------------

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed `K` prompts, int64 ids and mask `[K, L]`, as word embeddings `[K, D]`; not normalised.

        Padding that no prompt uses is cut off first (the text tower is causal and reads at the end token), unless
        the mask lies on a GPU, which would have to be waited for: pad to the longest there.
        """
        if not torch.compiler.is_compiling() and attention_mask.device.type == "cpu":
            longest = int(attention_mask.sum(1).max())
            input_ids = input_ids[:, :longest]
        # The mask is not handed on: causal attention never looks behind the end token, where padding would be.
        pooled = self.clip.text_model(input_ids=input_ids).pooler_output
        return self.clip.text_projection(pooled)

    def encode_photo(self, pixel_values: Tensor) -> list[Tensor]:
        """Return adapted activations `[B, T, V]` of the extracted blocks, deepest first; later blocks are not run.

        `pixel_values [B, 3, H, W]` are normalised; H and W may differ. Raises `PartCLIPSegError` for photos
        smaller than one patch.
        """
        vision = self.clip.vision_model
        grid, embeddings = self.grid(pixel_values), vision.embeddings
        patches = embeddings.patch_embedding(pixel_values.to(self.dtype)).flatten(2).transpose(1, 2)  # [B, g·g', V]
        tokens = torch.cat([embeddings.class_embedding.expand(patches.shape[0], 1, -1), patches], dim=1)  # [B, T, V]
        hidden = vision.pre_layrnorm(tokens + self.position_embeddings(grid))
        activations: list[Tensor] = []
        for index in range(max(self.config.extract_layers) + 1):
            hidden = vision.encoder.layers[index](hidden, attention_mask=None)  # [B, T, V]
            if index in self.config.extract_layers:
                activations.append(self.visual_adapter(hidden))
        return activations[::-1]

    def position_embeddings(self, grid: tuple[int, int]) -> Tensor:
        """Interpolate the trained position embeddings to the class token and `grid` patches, `[1, T, V]`.

        The result is cached until the weights change, unless they are being trained.
        """
        weight: Tensor = self.clip.vision_model.embeddings.position_embedding.weight  # [1 + s·s, V]
        return self._resized(weight, grid, lambda: _interpolate(weight, grid))

    def word_logits(self, inputs: Inputs, embeddings: Tensor) -> Tensor:
        """Compute logits `[B, K, h, w]` of word embeddings `[K, D]`, or of each photo's own `[B, K, D]`."""
        pixel_values = inputs["pixel_values"]
        features, _ = self.decoder.condition_features(self.encode_photo(pixel_values), embeddings.to(self.dtype))
        return self.decoder.logits(features, self.grid(pixel_values))

    def part_word_logits(self, inputs: Inputs, embeddings: Tensor) -> Tensor:
        """Compute logits `[B, W + 1, h, w]` of part words `[W, D]` and background, the same as in `forward`."""
        return self.word_logits(inputs, torch.cat([embeddings.to(self.dtype), self.background]))

    def grid(self, pixel_values: Tensor) -> tuple[int, int]:
        """Return rows and columns of patches of `pixel_values [B, 3, H, W]`."""
        patch = self.config.vision_config.patch_size
        rows, columns = pixel_values.shape[-2] // patch, pixel_values.shape[-1] // patch
        if rows < 1 or columns < 1:
            raise PartCLIPSegError(
                f"photos of {pixel_values.shape[-2]}x{pixel_values.shape[-1]} pixels are smaller than one patch: "
                f"resize them to at least {patch}x{patch}"
            )
        return rows, columns

    def logits_size(self, inputs: Inputs, words: Words) -> tuple[int, int]:
        """Return height and width of the logits of `inputs`, from their shape."""
        patch = self.config.vision_config.patch_size
        scale = (patch // 4) ** 2 if self.config.use_complex_transposed_convolution else patch
        rows, columns = self.grid(inputs["pixel_values"])
        return rows * scale, columns * scale

    def attention_tokens(self, inputs: Inputs) -> int:
        """Return the number of patches of `inputs`."""
        rows, columns = self.grid(inputs["pixel_values"])
        return rows * columns

    # -- training ---------------------------------------------------------------------------------------------

    def train_published_parameters(self, background: bool = True) -> None:
        """Freeze all but what the paper trains: adapter, token and position embeddings of the text, decoder.

        `background` trains the background word too, which the reference leaves at its random start.
        """
        self.requires_grad_(False)
        self.visual_adapter.requires_grad_(True)
        self.clip.text_model.embeddings.requires_grad_(True)
        self.decoder.requires_grad_(True)
        self.background.requires_grad_(background)

    @classmethod
    def word_teacher(cls: type[Any], name: str) -> Any:
        """Load a CLIPSeg without the adapter, which answers as it is published; None for another type of model."""
        if read_config(name).get("model_type") != CLIPSegConfig.model_type:
            return None
        return cls.from_pretrained(name, dtype=torch.float32, visual_adapter_ratio=0.0)

    def add_tokens(self, count: int) -> None:
        """Add embeddings, drawn from torch's global generator with mean and deviation of the old ones."""
        add_token_embeddings(self.clip.text_model, self.config.text_config, count)
        self.renew_stamp()

    def recompute(self, enabled: bool) -> None:
        """Make the backward pass compute the decoder's hidden layers again instead of storing them."""
        for layer in self.decoder.modules():
            if isinstance(layer, DecoderLayer):
                layer.recompute = enabled

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as in transformers; a CLIPSeg checkpoint is accepted too, as the start of a model of this class.

        Raises `PartCLIPSegError` where neither a directory nor the hub has the name.
        """
        from partclipseg.models.clipseg_weights import load_clipseg

        return load_clipseg(cls, pretrained_model_name_or_path, super().from_pretrained, *args, **kwargs)

    # -- speed ------------------------------------------------------------------------------------------------

    def repeated_layers(self) -> list[nn.Module]:
        """Return the layers of the photo tower and of the decoder.

        The text tower is left out: it is short, and its masks are made in another way while a graph is captured.
        """
        decoding = [module for module in self.decoder.modules() if isinstance(module, DecoderLayer | UpsamplingHead)]
        return [*self.clip.vision_model.encoder.layers, *decoding]

    def quantise(self) -> None:
        """Compute the products of the photo tower, and of the decoder's hidden layers, in int8, if these are wide."""
        layers: Any = self.clip.vision_model.encoder.layers
        for layer in layers:
            quantise(layer)
            if self.config.vision_config.hidden_act == "quick_gelu":
                layer.mlp.activation_fn = one_pass_gelu(layer.mlp.fc1, layer.mlp.fc2)
        if self.config.decoder_intermediate_size >= WIDE:
            quantise(self.decoder.layers, "expand", "contract")
        self.int8 = True
        self.renew_stamp()

    def graphs(self) -> Graphs | None:
        """Return the captured graphs of this model; None unless it runs on a CUDA device without autocast."""
        # Autocast keeps copies of the weights until its block ends; a graph would read them after that.
        if self.device.type != "cuda" or torch.is_autocast_enabled("cuda"):
            return None
        # Graphs keep the interpolated position embeddings as constants; other weights they read where they lie.
        positions: Tensor = self.clip.vision_model.embeddings.position_embedding.weight
        self._graphs.hold((self._renewed, stamp_of(positions)), self.parameters)
        return self._graphs


def _interpolate(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Interpolate positions of a class token and square patches, bicubically: `[1 + s·s, V]` → `[1, 1 + g·g', V]`."""
    side = math.isqrt(len(positions) - 1)
    if grid == (side, side):
        return positions[None]
    square = positions[1:].T.unflatten(1, (side, side))[None]  # [1, V, s, s]
    patches = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)[0]  # [V, g, g']
    return torch.cat([positions[:1], patches.flatten(1).T])[None]
