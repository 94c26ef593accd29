"""``partclipseg convert``: a released ``.pth`` checkpoint becomes a model directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from partclipseg.apps.options import optional
from partclipseg.apps.terminal import plain_console
from partclipseg.counts import count_of
from partclipseg.files import require_new
from partclipseg.grammar import CATALOGS

VocabularyWords = Annotated[
    str,
    tyro.conf.arg(
        metavar="WORDS",
        help="Words that the model is meant for; `predict` uses them when it is given none.\n"
        f'A catalogue ({", ".join(CATALOGS)}), a file, or text such as\n"dog: head, torso, leg, tail".',
    ),
]


@dataclass(frozen=True)
class Convert:
    """Turn a released checkpoint into a directory that every command takes as --model.

    It takes files of PartCLIPSeg, PartCATSeg and CAT-Seg, and OV-PARTS' CLIPSeg, CAT-Seg and ZSSeg+; the names of the
    tensors tell which. `partclipseg models` lists those that are fetched by name, without this command.

    PartCLIPSeg's files were trained with a wrong lookup of object words. Give --vocabulary the catalogue of their
    training, and your own words are read as training read them (docs/reference.md, D1).

    Example: partclipseg convert partclipseg_voc_oracle.pth --output models/pascal --vocabulary pascal-part-116
    """

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.pth")]
    """The released .pth file. Only tensors are read from it."""
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The directory to write; it must not exist yet."""
    vocabulary: VocabularyWords
    config: Annotated[Path | None, optional("FILE.json")] = None
    """Configuration as JSON, for models of another size than the released ones: for PartCLIPSeg and CLIPSeg that of the
    released code, for the others the entries of a config.json."""
    tokenizer: Annotated[str | None, optional("DIR|NAME")] = None
    """Directory or hub name of the CLIP tokenizer to put beside the weights.
    Left out: CLIP's own, which is fetched from the hub once and kept."""

    def run(self) -> int:
        from partclipseg.models.convert import convert_file
        from partclipseg.models.reading import read_json_table
        from partclipseg.vocabulary import Vocabulary

        require_new(self.output)
        vocabulary = Vocabulary.load(self.vocabulary).with_objects("the list of a released model")
        config = None if self.config is None else read_json_table(self.config)
        model, remark = convert_file(self.checkpoint, self.output, vocabulary, config, self.tokenizer)
        plain_console().print(
            f"{self.output}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, "
            f"{type(model).__name__}, {count_of(len(vocabulary), 'object-part')}\n{remark}"
        )
        return 0
