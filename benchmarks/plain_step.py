"""A training step's losses as one would first write them, which the package's are compared with.

The order of work is the released code's: every prompt padded to 77 tokens, all blocks of the photo tower, attention
written out in every layer with the maps of every class kept, part and object features joined for each class,
transposed convolutions, one-hot targets, copies of the logits of the pixels that count, and loops over photos, objects
and parts. Where that code leaves a choice, the cheaper way is taken. The losses are the intended method's (attention
control with a gradient, pixels of unknown objects left out), so that they can be compared term by term.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from partclipseg.data.sample import OUTSIDE
from partclipseg.losses.config import LossConfig
from partclipseg.models.clipseg_decoder import DecoderLayer, FiLM
from partclipseg.models.partclipseg.model import PartCLIPSegModel


def plain_losses(
    model: PartCLIPSegModel,
    tokens: tuple[Tensor, Tensor],
    class_to_part: Tensor,
    class_to_object: Tensor,
    inputs: Mapping[str, Tensor],
    config: LossConfig,
) -> dict[str, Tensor]:
    """Terms and their `total`, as `PartLoss` names them; `tokens` are ids and mask, `[N_p + N_o, 77]` each."""
    words = model.clip.text_projection(model.clip.text_model(*tokens).pooler_output)
    conditions = torch.cat([words, model.background])  # [N, D]
    features, maps = _decode(model, inputs["pixel_values"], conditions)  # [B, N, C, g, g], [B, N, T, T]

    last, num_parts = len(conditions) - 1, int(class_to_part.max()) + 1
    background = class_to_part.new_tensor([last])
    parts, objects = torch.cat([class_to_part, background]), torch.cat([class_to_object + num_parts, background])
    word_logits = _upsample(model.decoder.upsample, features)  # [B, N, h, w]
    joined = torch.cat([features[:, parts], features[:, objects]], dim=2).movedim(2, -1)  # [B, K, g, g, 2C]
    pair_words = model.decoder.merge_words(torch.cat([conditions[objects], conditions[parts]], dim=1))  # [K, D]
    merged = _modulate(model.decoder.class_film, model.decoder.merge_features(joined).flatten(2, 3), pair_words)
    merged = merged.transpose(2, 3).unflatten(3, features.shape[-2:])  # [B, K, C, g, g]
    class_logits = _upsample(model.decoder.class_upsample, merged)
    # Of every class, whatever the photos show; objects have maps too, which no loss reads.
    maps = torch.cat([(maps[:, parts[:-1]] + maps[:, objects[:-1]]) / 2, maps[:, num_parts:-1]], dim=1)

    of_part, of_object = inputs["part_labels"].long(), inputs["object_labels"].long()
    counted = of_object != OUTSIDE
    labelled, on_object, off_object = (of_part >= 0) & counted, of_object >= 0, (of_object < 0) & counted
    weight = config.background_weight
    class_targets = _one_hot(class_logits, of_part, labelled, off_object)
    object_logits, part_logits = word_logits[:, num_parts:], word_logits[:, :num_parts]
    terms = {
        "object_part": _cross_entropy(class_logits, class_targets, labelled, weight)
        + _cross_entropy(class_logits, class_targets, off_object, weight),
        "object": _cross_entropy(
            object_logits, _one_hot(object_logits, of_object, on_object, off_object), counted, weight
        ),
        "part": _cross_entropy(
            part_logits, _one_hot(part_logits, class_to_part[of_part.clamp(min=0)], labelled), labelled, 1.0
        ),
    }
    terms["separation"], terms["enhancement"] = _control(maps, of_part, of_object, class_to_object, config)
    terms["total"] = (
        terms["object_part"]
        + config.object_weight * terms["object"]
        + config.part_weight * terms["part"]
        + config.separation_weight * terms["separation"]
        + config.enhancement_weight * terms["enhancement"]
    )
    return terms


def _decode(model: PartCLIPSegModel, pixels: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
    """Features `[B, N, C, g, g']` of every condition, and the last layer's attention, head-averaged, `[B, N, T, T]`."""
    seen = model.clip.vision_model(pixels, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states
    extracted = [model.visual_adapter(seen[index + 1]) for index in model.config.extract_layers][::-1]
    batch, count, decoder = len(pixels), len(conditions), model.decoder
    x, maps = None, None
    for index, (activation, reduce, layer) in enumerate(
        zip(extracted, decoder.reduce, decoder.layers, strict=True)
    ):
        reduced = reduce(activation).unsqueeze(1).expand(-1, count, -1, -1)  # [B, N, T, C]
        x = reduced if x is None else x + reduced
        if index == decoder.conditional_layer:
            x = _modulate(decoder.film, x, conditions)
        flat, maps = _layer(layer, x.flatten(0, 1))
        x = flat.unflatten(0, (batch, count))
    assert x is not None
    assert maps is not None
    features = x[:, :, 1:].transpose(2, 3).unflatten(3, model.grid(pixels))
    return features, maps.unflatten(0, (batch, count))


def _layer(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    assert isinstance(layer, DecoderLayer)
    q, k, v = (t.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for t in layer.qkv(x).chunk(3, dim=-1))
    attention = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)  # [M, heads, T, T]
    x = layer.norm1(x + layer.project((attention @ v).transpose(1, 2).flatten(2)))
    return layer.norm2(x + layer.contract(F.relu(layer.expand(x)))), attention.mean(1)


def _modulate(film: FiLM, features: Tensor, words: Tensor) -> Tensor:
    return film.mul(words)[None, :, None] * features + film.add(words)[None, :, None]


def _upsample(head: nn.Sequential, features: Tensor) -> Tensor:
    x = features.flatten(0, 1)
    for layer in head:
        x = layer(x)
    return x[:, 0].unflatten(0, features.shape[:2])


def _one_hot(logits: Tensor, index: Tensor, where: Tensor, background: Tensor | None = None) -> Tensor:
    targets = torch.zeros_like(logits)
    targets.scatter_(1, index.clamp(min=0).unsqueeze(1), where.unsqueeze(1).float())
    if background is not None:
        targets[:, -1] = background.float()
    return targets


def _cross_entropy(logits: Tensor, targets: Tensor, pixels: Tensor, background_weight: float) -> Tensor:
    """Mean over the chosen pixels and all channels, the last of which counts `background_weight`."""
    if not pixels.any():
        return logits.sum() * 0
    weight = logits.new_ones(logits.shape[1])
    weight[-1] = background_weight
    chosen, wanted = logits.permute(0, 2, 3, 1)[pixels], targets.permute(0, 2, 3, 1)[pixels]
    return F.binary_cross_entropy_with_logits(chosen, wanted, weight)


def _control(
    maps: Tensor, of_part: Tensor, of_object: Tensor, class_to_object: Tensor, config: LossConfig
) -> tuple[Tensor, Tensor]:
    """Separation and enhancement of attention `[B, K', T, T]`, object by object; formulas in `losses.attention`."""
    side = math.isqrt(maps.shape[-1] - 1)
    tokens = side * side
    of_part, of_object = (
        F.interpolate(labels[:, None].float(), (side, side))[:, 0].long().flatten(1) for labels in (of_part, of_object)
    )
    separations, enhancements = [], []
    for photo, parts_here, objects_here in zip(maps, of_part, of_object, strict=True):
        shown = [index for index in parts_here.unique().tolist() if index >= 0]
        for number in sorted({int(class_to_object[index]) for index in shown}):
            claims, strengths = [], []
            for index in shown:
                if int(class_to_object[index]) != number:
                    continue
                own = parts_here == index  # [n]
                mean = photo[index, 1:, 1:][own].mean(0)
                fixed = mean.detach()
                contrast = (fixed.max() - fixed.min()).clamp(min=1 / tokens)
                claim = _smooth((mean - fixed.min()) / contrast, side, config.smoothing)
                claim = (claim - config.threshold).relu() / (1 - config.threshold) * (objects_here == number)
                claims.append(torch.where(own, claim.detach(), claim))
                even = _smooth(own.float() / own.sum(), side, config.smoothing).max()
                strengths.append((_smooth(mean, side, config.smoothing)[own].max() / even).clamp(max=1))
            enhancements.append(1 - torch.stack(strengths).min())
            if len(claims) < 2:
                continue
            pairs = [(one * other).sum() for i, one in enumerate(claims) for j, other in enumerate(claims) if i != j]
            shared = torch.stack(pairs).sum() / (len(claims) - 1)
            own_claims = torch.stack([claim.square().sum() for claim in claims]).sum()
            separations.append(shared / (2 * own_claims - shared).detach().clamp(min=1))
    separation, enhancement = (
        torch.stack(values).mean() if values else maps.sum() * 0 for values in (separations, enhancements)
    )
    return separation, enhancement


def _smooth(values: Tensor, side: int, sigma: float) -> Tensor:
    taps = torch.exp(-((torch.arange(-1, 2, device=values.device) / (2 * sigma)) ** 2))
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    padded = F.pad(values.view(1, 1, side, side), (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, kernel[None, None]).flatten()
