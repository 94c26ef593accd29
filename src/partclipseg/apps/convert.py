"""``partclipseg convert``: a released ``.pth`` checkpoint becomes a model directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from partclipseg.apps.options import optional
from partclipseg.errors import PartCLIPSegError, UsageError


@dataclass(frozen=True)
class Convert:
    """Turn a released checkpoint into a directory that every command takes as --model.

    Known are PartCLIPSeg's files, and those of PartCATSeg, CAT-Seg and OV-PARTS' CAT-Seg (docs/partcatseg.md).
    PartCLIPSeg's were trained with a wrong lookup of object words: their result for a class depends on the
    whole list of words, so lists near their training catalogue are the safer ones (docs/reference.md, D1).

    Example: partclipseg convert partclipseg_voc.pth --output models/pascal --vocabulary pascal-part-116
    """

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.pth")]
    """The released .pth file. Only tensors are read from it."""
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The directory to write; it must not exist yet."""
    vocabulary: Annotated[str, tyro.conf.arg(metavar="WORDS")]
    """Words that the model is meant for; `predict` uses them when it is given none.
    A catalogue (pascal-part-116, ade20k-part-234, part-imagenet), a file, or text such as
    "dog: head, torso, leg, tail"."""
    config: Annotated[Path | None, optional("FILE.json")] = None
    """Configuration as JSON, for models of another size than the released ones: that of the released code for
    PartCLIPSeg, the entries of a config.json for the others."""
    tokenizer: Annotated[str, tyro.conf.arg(metavar="DIR|NAME")] = "openai/clip-vit-base-patch16"
    """Directory or hub name of the CLIP tokenizer to put beside the weights."""

    def run(self) -> int:
        from rich.console import Console

        from partclipseg.files import whole_directory
        from partclipseg.models.directory import write_directory
        from partclipseg.models.reading import read_json_table
        from partclipseg.models.registry import find_foreign
        from partclipseg.vocabulary import Vocabulary

        if self.output.exists():
            raise UsageError(f"{self.output} exists already: name another --output, or remove it first")
        vocabulary = Vocabulary.load(self.vocabulary).with_objects("the list of a released model")
        foreign, config = find_foreign(self.checkpoint, None if self.config is None else read_json_table(self.config))
        tokenizer = self._load_tokenizer(config.text_config)  # before the weights, which take longer
        model = foreign.load_released(self.checkpoint, config)
        with whole_directory(self.output) as directory:
            write_directory(directory, model, tokenizer, vocabulary, str(self.output))
        Console(soft_wrap=True, highlight=False).print(
            f"{self.output}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, "
            f"{type(model).__name__}, {len(vocabulary)} object-parts\n{foreign.REMARK}",
            markup=False,
        )
        return 0

    def _load_tokenizer(self, text_config: Any) -> Any:
        from partclipseg.models.directory import check_tokenizer, load_tokenizer

        tokenizer = load_tokenizer(self.tokenizer)
        if len(tokenizer) != text_config.vocab_size:
            raise PartCLIPSegError(
                f"the tokenizer {self.tokenizer!r} has {len(tokenizer)} tokens and the checkpoint "
                f"{text_config.vocab_size}: give the tokenizer that the checkpoint was trained with as --tokenizer"
            )
        check_tokenizer(tokenizer, text_config, self.tokenizer)
        return tokenizer
