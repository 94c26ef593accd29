"""The tiny backbone: a small CLIP and a CLIPSeg decoder, trained from nothing on PartShapes.

The released models were made in the same way on photos: CLIP from captions, CLIPSeg from referring expressions of
whole objects. Here all losses run together, since few scenes and words cannot replace 400 million captions:

- captions name objects of the scene, any object, and are contrasted with the photos of the batch (CLIP);
- patches on an object are contrasted with the words of all objects, which a short training needs: a caption alone
  says of some 256 patches together what it says of one;
- object words, those in the photo and some that are not, are referred to their masks (CLIPSeg).

No part is ever labelled or named, of seen and unseen objects alike. What results is a CLIPSeg checkpoint like the
real one, and the recipes for PartShapes start from it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import whole_directory
from partclipseg.losses.finite import check_finite
from partclipseg.models.clipseg.config import CLIPSegBaselineConfig
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.clipseg_weights import to_clipseg
from partclipseg.models.cuda_graphs import StepGradients
from partclipseg.processes import join_processes, step_seed, termination
from partclipseg.shapes.cache import SceneArrays, render_split
from partclipseg.shapes.captions import caption, words
from partclipseg.shapes.tokenizer import build_tokenizer
from partclipseg.shapes.world import partshapes_world
from partclipseg.training.checkpoint import CheckpointStore, differences
from partclipseg.training.folder import CONFIGURATION, LOG, check_new
from partclipseg.training.log import RunLog, write_configuration
from partclipseg.training.optim import set_learning_rate
from partclipseg.training.recipe import BACKBONE_PATCH as PATCH
from partclipseg.training.recipe import BackboneRecipe
from partclipseg.training.start import compile_on
from partclipseg.writing import claimed, writing

logger = logging.getLogger(__name__)

CAPTION_LENGTH = 48
"""Maximum number of tokens of the text tower; longer captions are cut."""


def backbone_config(image_size: int, words: int) -> CLIPSegBaselineConfig:
    """Some 4.5 million parameters: 7 vision blocks of width 192 on 8-pixel patches, 3 text blocks of width 128."""
    return CLIPSegBaselineConfig(
        image_size=image_size,
        visual_adapter_ratio=0.0,  # CLIPSeg has no adapter; PartCLIPSeg brings its own
        text_config={
            "vocab_size": words,
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": CAPTION_LENGTH,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
        vision_config={
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": 7,
            "num_attention_heads": 6,
            "image_size": image_size,
            "patch_size": PATCH,
        },
        projection_dim=128,
        reduce_dim=64,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=256,
        extract_layers=[2, 4, 6],
        use_complex_transposed_convolution=True,
    )


_HARMLESS = ("checkpoint_every", "log_every")
"""Settings of the recipe that a continued run may change."""


def train_backbone(
    recipe: BackboneRecipe,
    output: str | Path,
    scenes: SceneArrays | None = None,
    report: Callable[[int, Mapping[str, float]], None] | None = None,
) -> Path | None:
    """Train the towers and the decoder together from random weights, or continue the run that `output` holds.

    `output` receives ``config.yaml``, ``log.jsonl``, ``checkpoints/`` and ``model/``, a CLIPSeg checkpoint with its
    tokenizer, which is returned. SIGTERM saves and returns None. `scenes` are the first of the split "base",
    rendered here if None; all of them lie on the device. `report` is told step and losses at every line of the log.

    Raises `PartCLIPSegError` if `output` holds a run with another recipe, or a loss is not finite; `UsageError` if it
    is to be compiled on a CPU, or by several processes.
    """
    output = Path(output)
    processes = join_processes()
    if processes.num_processes > 1:
        if (output / "model").is_dir():
            return output / "model"
        raise UsageError(
            "the backbone is trained by one process: train it without torchrun first, "
            f"partclipseg train partshapes-backbone --output {output}"
        )
    with claimed(output):
        return _train(recipe, output, processes.device or torch.device("cpu"), scenes, report)


def _train(
    recipe: BackboneRecipe,
    output: Path,
    device: torch.device,
    scenes: SceneArrays | None,
    report: Callable[[int, Mapping[str, float]], None] | None,
) -> Path | None:
    store = CheckpointStore(output / "checkpoints", states=("model", "optimizer", "recipe"))
    checkpoint = store.load()
    if checkpoint is None:
        check_new(output, asdict(recipe), _HARMLESS)
    else:
        changes = differences(checkpoint.states["recipe"], asdict(recipe), _HARMLESS)
        if changes:
            raise PartCLIPSegError(
                f"{output} holds a backbone with another recipe: name another output\n  " + "\n  ".join(changes)
            )
    if (output / "model").is_dir() and (checkpoint is None or checkpoint.step == recipe.steps):
        return output / "model"  # finished
    scenes = scenes or render_split("base", recipe.scenes, recipe.image_size)

    torch.manual_seed(recipe.seed)
    tokenizer = build_tokenizer(words(), CAPTION_LENGTH)
    model = CLIPSegBaseline(backbone_config(scenes.size, len(tokenizer)))
    nn.Module.to(model, device)
    model.train()
    model.visual_adapter.requires_grad_(False)
    model.background.requires_grad_(False)
    if recipe.compile:
        compile_on(device, model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        fused=True if device.type == "cuda" else None,
    )
    start = 0
    if checkpoint is not None:
        model.load_state_dict(checkpoint.states["model"])
        optimizer.load_state_dict(checkpoint.states["optimizer"])
        start = checkpoint.step

    batches = _Batches(scenes, tokenizer, model, recipe.seed, device)
    gradients = StepGradients(lambda inputs: _losses(model, batches, inputs["rows"], recipe), parameters)
    write_configuration(output / CONFIGURATION, {"recipe": asdict(recipe), "device": str(device)})
    log = RunLog(output / LOG)
    log.rewind(start)
    with termination() as told_to_stop:
        for step in range(start, recipe.steps):
            set_learning_rate(optimizer, recipe.learning_rate * recipe.learning_rate_factor(step))
            seed = step_seed(recipe.seed, step)
            torch.manual_seed(seed)
            rows = np.random.default_rng(seed).integers(0, len(scenes), recipe.batch_size)
            terms = gradients({"rows": torch.from_numpy(rows)})
            torch.nn.utils.clip_grad_norm_(parameters, recipe.max_gradient_norm)
            optimizer.step()
            done = step + 1
            if done % recipe.log_every == 0 or done == recipe.steps:
                check_finite(terms)
                losses = {name: term.item() for name, term in terms.items()}
                log.write(done, losses=losses)
                if report is not None:
                    report(done, losses)
            if done % recipe.checkpoint_every == 0 or done == recipe.steps or told_to_stop.is_set():
                states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "recipe": asdict(recipe)}
                store.save(done, states)
            if told_to_stop.is_set() and done < recipe.steps:
                return None
    nn.Module.to(model, "cpu")
    clipseg = to_clipseg(model).half()
    with writing(output / "model"), whole_directory(output / "model", durable=True) as unfinished:
        clipseg.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    return output / "model"


class _Batches:
    """Batches gathered, mirrored and recoloured on the device of the scenes."""

    def __init__(
        self,
        scenes: SceneArrays,
        tokenizer: PreTrainedTokenizerBase,
        model: CLIPSegBaseline,
        seed: int,
        device: torch.device,
    ) -> None:
        object_words = partshapes_world().vocabulary.objects
        rng = np.random.default_rng(seed)
        self.photos = torch.from_numpy(np.array(scenes.images)).to(device)
        self.labels = torch.from_numpy(np.array(scenes.objects)).to(device)
        self.captions = _tokenise(tokenizer, [caption(scene, rng) for scene in scenes], device)  # [N, L]
        self.object_words = _tokenise(tokenizer, list(object_words), device)  # [O, L']
        self.present = torch.cat([_presence(part, len(object_words)) for part in self.labels.split(4096)])  # [N, O]
        self.mean, self.std = (
            torch.tensor(values, device=device).view(3, 1, 1)
            for values in (model.config.image_mean, model.config.image_std)
        )

    def photos_and_labels(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised pixels `[B, 3, S, S]` and object labels `[B, S, S]`."""
        pixels = self.photos[rows].permute(0, 3, 1, 2).float() / 255
        labels = self.labels[rows]
        batch, device = len(rows), pixels.device
        mirrored = torch.rand(batch, 1, 1, device=device) < 0.5
        pixels = torch.where(mirrored.unsqueeze(1), pixels.flip(-1), pixels)
        labels = torch.where(mirrored, labels.flip(-1), labels)
        gain = 1 + 0.3 * (torch.rand(batch, 3, 1, 1, device=device) - 0.5)
        shift = 0.2 * (torch.rand(batch, 1, 1, 1, device=device) - 0.5)
        return ((pixels * gain + shift).clamp(0, 1) - self.mean) / self.std, labels


def _losses(model: CLIPSegBaseline, batches: _Batches, rows: Tensor, recipe: BackboneRecipe) -> dict[str, Tensor]:
    """Compute mask loss and contrastive loss of the scenes `rows [B]`; nothing is read back from the device."""
    pixels, labels = batches.photos_and_labels(rows)
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=pixels.is_cuda):
        activations = model.encode_photo(pixels)

        # Referring: the objects of the photo first, then words drawn from the absent ones.
        present = batches.present[rows]  # [B, O]
        order = torch.rand(present.shape, device=present.device) + present
        asked = order.topk(min(recipe.phrases, present.shape[1]), dim=1).indices  # [B, K]
        words_of_objects = model.encode_text(batches.object_words, torch.ones_like(batches.object_words))  # [O, D]
        features, _ = model.decoder.condition_features(activations, words_of_objects[asked])
        logits = model.decoder.logits(features, model.grid(pixels)).float()  # [B, K, h, w]
        small = F.interpolate(labels[:, None].float(), logits.shape[-2:], mode="nearest-exact")
        masks = F.binary_cross_entropy_with_logits(logits, (small == asked[..., None, None]).float())

        # Inputs of CLIP's contrast: the photo and its patches, sentences and words.
        ids = batches.captions[rows]  # [B, L]
        tokens = model.clip.visual_projection(model.clip.vision_model.post_layernorm(activations[0]))  # [B, T, D]
        sentences = model.encode_text(ids, torch.ones_like(ids))
    tokens, sentences, object_words = (
        F.normalize(x.float(), dim=-1) for x in (tokens, sentences, words_of_objects)
    )
    scale = model.clip.logit_scale.clamp(max=math.log(100)).exp()

    # Captions: photos and texts of the batch, where an equal caption is no mistake.
    similarity = scale * tokens[:, 0] @ sentences.T  # [B, B]
    same = (ids[:, None] == ids).all(-1).float()
    same = same / same.sum(1, keepdim=True)
    captions = (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)) / 2

    # Patches: each one that lies on an object is told its word among all objects' words.
    on_patches = labels[:, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].flatten().long()  # [B·g·g]
    patches = F.cross_entropy((scale * tokens[:, 1:] @ object_words.T).flatten(0, 1), on_patches, ignore_index=-1)
    total = masks + recipe.caption_weight * captions + recipe.patch_weight * patches
    return {"masks": masks, "captions": captions, "patches": patches, "total": total}


def _presence(labels: Tensor, count: int) -> Tensor:
    """Return the objects, of `count`, that each map shows: `[N, S, S]` → bool `[N, count]`."""
    flat = labels.flatten(1).long() + 1  # 0 is background
    return torch.zeros(len(flat), count + 1, dtype=torch.bool, device=flat.device).scatter_(1, flat, True)[:, 1:]


def _tokenise(tokenizer: PreTrainedTokenizerBase, texts: list[str], device: torch.device) -> Tensor:
    """Tokenise as int64 `[N, L]`, padded to the longest; the tower reads nothing after the end token."""
    encoded = tokenizer(texts, padding="longest", truncation=True, return_tensors="pt")
    return torch.as_tensor(encoded["input_ids"], device=device)
