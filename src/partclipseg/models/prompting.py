"""Settings of a model without training: its prompts, its threshold, and whether object words decide first."""

from __future__ import annotations

import re
from dataclasses import dataclass

from partclipseg.checks import check_fields
from partclipseg.errors import UsageError

PROMPT = "{object} {part}"
"""The prompt of the published CLIPSeg row: an object-part's name without its ``'s``."""


@dataclass(frozen=True)
class Prompting:
    """The questions that a plain CLIPSeg is asked, and the threshold of an answer.

    Raises `UsageError` for a prompt without ``{part}`` or with other braces, a threshold outside of 0 to 1, and values
    of another type.
    """

    prompts: tuple[str, ...] = (PROMPT,)
    """Templates with ``{part}`` and ``{object}``; the embeddings of several are averaged."""
    threshold: float = 0.5
    """A class or object takes a pixel only from this probability on, 0 to 1."""
    object_gate: bool = True
    """Let the bare object words decide first which object a pixel belongs to."""

    def __post_init__(self) -> None:
        if isinstance(self.threshold, int | float) and not 0 <= self.threshold <= 1:
            raise UsageError(f"--threshold must be from 0 to 1, not {self.threshold}")
        check_fields(self, "prompting")
        if not self.prompts:
            raise UsageError(f'no prompt is given: leave --prompt out, or write one such as "{PROMPT}"')
        for prompt in self.prompts:
            rest = prompt.replace("{part}", "").replace("{object}", "")
            if "{part}" not in prompt or re.search("[{}]", rest):
                raise UsageError(
                    f"the prompt {prompt!r} must have {{part}}, may have {{object}}, and no other braces: write it as "
                    f'"the {{part}} of the {{object}}"'
                )

    def fill(self, template: str, object_word: str, part_word: str) -> str:
        """Fill a template with the words; a word that itself has braces stays as it is."""
        words = {"{object}": object_word, "{part}": part_word}
        return re.sub("{object}|{part}", lambda match: words[match[0]], template)

    def __str__(self) -> str:
        prompts = " and ".join(f'"{prompt}"' for prompt in self.prompts)
        gate = "object words decide first" if self.object_gate else "no object gate"
        return f"prompt {prompts}, threshold {self.threshold:g}, {gate}"
