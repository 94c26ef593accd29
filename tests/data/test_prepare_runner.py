"""Runs that are stopped, repeated, and fail in part."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from partclipseg.data.prepare.runner import JOURNAL, Outcome, place_photo, prepare, sizes, source_state
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import locked, write_text


@dataclass(frozen=True)
class WriteJob:
    """Writes its key, and counts how often it did."""

    key: str
    seconds: float = 0
    sources: tuple[Path | str | int, ...] = ()

    def source(self) -> str:
        """See `Job.source`."""
        return source_state(*self.sources)

    def run(self, output: Path) -> Outcome:
        """See `Job.run`."""
        if self.key == "bad":
            raise PartCLIPSegError("bad.jpg is broken")
        if self.key == "dead":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        with open(output.parent / "log", "a") as log:
            log.write(self.key + "\n")
        if self.key == "empty":
            return Outcome(self.key, "train")
        path = output / f"{self.key}.txt"
        write_text(path, self.key)
        return Outcome(self.key, "train", sizes(output, path), parts=[len(self.key)], unknown=["tip"])


@dataclass(frozen=True)
class WriteRecipe:
    """See `Recipe`."""

    keys: tuple[str, ...]
    seconds: float = 0
    option: str = "a"
    name: str = "test"
    sources: tuple[Path | str | int, ...] = ()

    def options(self) -> dict[str, str]:
        """One."""
        return {"option": self.option}

    def jobs(self) -> list[WriteJob]:
        """One for each key."""
        return [WriteJob(key, self.seconds, self.sources) for key in self.keys]

    def finish(self, output: Path, outcomes: Sequence[Outcome]) -> None:
        """Write the keys."""
        write_text(output / "list.json", json.dumps([outcome.key for outcome in outcomes]))


def log(output: Path) -> list[str]:
    path = output.parent / "log"
    return path.read_text().split() if path.is_file() else []


def test_a_finished_run_is_taken_over(tmp_path):
    output = tmp_path / "out"
    steps: list[tuple[int, int]] = []
    first = prepare(WriteRecipe(("b", "a", "empty")), output, progress=lambda *step: steps.append(step))
    assert (dict(first.photos), first.taken_over, first.left_out) == ({"train": 2}, 0, 1)
    assert (first.parts, dict(first.unknown), first.failures) == (frozenset({1}), {"tip": 2}, ())
    assert steps == [(1, 3), (2, 3), (3, 3)]
    second = prepare(WriteRecipe(("b", "a", "empty")), output)
    assert (second.photos, second.taken_over, second.left_out) == (first.photos, 3, 1)
    assert log(output) == ["a", "b", "empty"]
    assert json.loads((output / "list.json").read_text()) == ["a", "b"]


def test_workers_give_the_same(tmp_path):
    keys = tuple(f"k{i}" for i in range(40))
    alone, together = (prepare(WriteRecipe(keys), tmp_path / f"w{w}", workers=w) for w in (1, 2))
    assert alone == together
    assert (tmp_path / "w1" / JOURNAL).read_bytes() == (tmp_path / "w2" / JOURNAL).read_bytes()


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_file_that_is_gone_or_cut_is_made_again(tmp_path, damage):
    output = tmp_path / "out"
    prepare(WriteRecipe(("a", "b")), output)
    if damage == "missing":
        (output / "a.txt").unlink()
    else:
        (output / "a.txt").write_text("")
    assert prepare(WriteRecipe(("a", "b")), output).taken_over == 1
    assert (output / "a.txt").read_text() == "a"
    assert prepare(WriteRecipe(("a", "b")), output).taken_over == 2


def mended(path: Path) -> Path:
    path.write_text("new")
    return path


def of_another_time(path: Path) -> Path:
    os.utime(path, ns=(1, 1))
    return path


def moved(path: Path) -> Path:
    (path.parent / "there").mkdir()
    return path.rename(path.parent / "there" / path.name)


def renamed(path: Path) -> Path:
    return path.rename(path.with_name("other.mat"))


def removed(path: Path) -> Path:
    path.unlink()
    return path


@pytest.mark.parametrize(
    ("change", "again"),
    [(mended, True), (of_another_time, True), (renamed, True), (removed, True), (moved, False), (Path.absolute, False)],
)
def test_a_photo_whose_source_has_changed_is_prepared_again(tmp_path, change, again):
    output, source = tmp_path / "out", tmp_path / "a.mat"
    source.write_text("annotation")
    prepare(WriteRecipe(("a",), sources=(source, "train", 1)), output)
    recipe = WriteRecipe(("a",), sources=(change(source), "train", 1))
    second = prepare(recipe, output)
    assert (second.taken_over, second.changed) == (1 - again, again)
    assert log(output) == ["a", "a"][: 1 + again]
    third = prepare(recipe, output)
    assert (third.taken_over, third.changed) == (1, 0)


def test_a_journal_without_the_state_of_sources_is_taken_over(tmp_path):
    output = tmp_path / "out"
    prepare(WriteRecipe(("a",), sources=(1,)), output)
    head, line = map(json.loads, (output / JOURNAL).read_text().splitlines())
    del line["source"]
    (output / JOURNAL).write_text(f"{json.dumps(head)}\n{json.dumps(line)}\n")
    assert prepare(WriteRecipe(("a",), sources=(2,)), output).taken_over == 1


def test_two_runs_at_once_are_refused(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    with locked(output), pytest.raises(PartCLIPSegError, match=r"another run is writing to .*out: wait for it"):
        prepare(WriteRecipe(("a",)), output)
    assert prepare(WriteRecipe(("a",)), output).photos["train"] == 1


def test_a_journal_that_breaks_off_costs_one_photo(tmp_path):
    output = tmp_path / "out"
    prepare(WriteRecipe(("a", "b")), output)
    journal = (output / JOURNAL).read_bytes()
    (output / JOURNAL).write_bytes(journal[:-20])
    (output / ".partclipseg-99999999-0123abcd.tmp.txt").touch()
    assert prepare(WriteRecipe(("a", "b")), output).taken_over == 1
    assert (output / JOURNAL).read_bytes() == journal
    assert not list(output.glob(".*"))


@pytest.mark.parametrize(
    "line", ['{"key": "a", "spl', "[1]", "7", '{"other": 1}', '{"key": "a", "split": "train", "new": 0}', ""]
)
def test_a_damaged_line_of_the_journal_costs_one_photo(tmp_path, line):
    output = tmp_path / "out"
    prepare(WriteRecipe(("a", "b")), output)
    head, _, second = (output / JOURNAL).read_text().splitlines()
    (output / JOURNAL).write_text("\n".join([head, line, second]) + "\n")
    assert prepare(WriteRecipe(("a", "b")), output).taken_over == 1
    assert log(output) == ["a", "b", "a"]
    assert prepare(WriteRecipe(("a", "b")), output).taken_over == 2


def test_a_folder_of_an_earlier_release_goes_on(tmp_path):
    """Its journal escapes every letter that is not ASCII."""
    output = tmp_path / "out"
    first = prepare(WriteRecipe(("ä", "b")), output)
    lines = [json.loads(line) for line in (output / JOURNAL).read_text(encoding="utf-8").splitlines()]
    (output / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="ascii")
    second = prepare(WriteRecipe(("ä", "b")), output)
    assert (second.photos, second.taken_over) == (first.photos, 2)


def test_failures_are_named_and_tried_again(tmp_path):
    output = tmp_path / "out"
    summary = prepare(WriteRecipe(("a", "bad", "c")), output)
    assert summary.failures == ("bad.jpg is broken",)
    assert summary.photos["train"] == 2
    assert prepare(WriteRecipe(("a", "bad", "c")), output).failures == ("bad.jpg is broken",)
    assert log(output) == ["a", "c"]


def test_a_killed_run_goes_on(tmp_path):
    output = tmp_path / "out"
    keys = tuple(f"k{i}" for i in range(6))
    command = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from test_prepare_runner import WriteRecipe, prepare\n"
        f"prepare(WriteRecipe({keys!r}, seconds=0.3), Path({str(output)!r}))"
    )
    run = subprocess.Popen([sys.executable, "-c", command])
    while len(log(output)) < 2 and run.poll() is None:
        time.sleep(0.02)
    run.kill()
    assert run.wait() == -signal.SIGKILL
    done = log(output)
    assert 2 <= len(done) < 6
    summary = prepare(WriteRecipe(keys), output)
    # The last one may have been killed between its file and its line in the journal.
    assert len(done) - 1 <= summary.taken_over <= len(done)
    assert json.loads((output / "list.json").read_text()) == list(keys)
    assert sorted(set(log(output))) == list(keys)


def test_a_dead_worker_is_an_error_that_says_how_to_go_on(tmp_path):
    with pytest.raises(PartCLIPSegError, match="run again"):
        prepare(WriteRecipe(("a", "dead")), tmp_path / "out", workers=2)


@pytest.mark.parametrize("change", [{"option": "b"}, {"name": "other"}])
def test_a_run_with_other_options_is_refused(tmp_path, change):
    prepare(WriteRecipe(("a",)), tmp_path)
    with pytest.raises(UsageError, match="another split"):
        prepare(WriteRecipe(("a",), **change), tmp_path)


def test_an_output_with_other_things_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="not empty"):
        prepare(WriteRecipe(("a",)), tmp_path)
    with pytest.raises(UsageError, match="not a folder"):
        prepare(WriteRecipe(("a",)), tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_to_do_is_an_error(tmp_path):
    with pytest.raises(PartCLIPSegError, match="no photo"):
        prepare(WriteRecipe(()), tmp_path / "out")


@pytest.mark.parametrize("mode", ["copy", "link"])
def test_photos_are_placed(tmp_path, mode):
    source = tmp_path / "a.jpg"
    source.write_bytes(b"photo")
    place_photo(source, tmp_path / "out/a.jpg", mode)
    assert (tmp_path / "out/a.jpg").read_bytes() == b"photo"
    assert (tmp_path / "out/a.jpg").samefile(source) == (mode == "link")
    with pytest.raises(PartCLIPSegError, match=r"missing\.jpg"):
        place_photo(tmp_path / "missing.jpg", tmp_path / "out/b.jpg", mode)
