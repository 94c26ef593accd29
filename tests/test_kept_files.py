"""Files of a repeated command: own ones are replaced, those of people are kept and said."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

from partclipseg.errors import PartCLIPSegError
from partclipseg.journal import Journal
from partclipseg.kept_files import KeptFiles, WrittenFiles, digest, file_digest, is_free


def run(folder: Path, text: str, name: str = "a.md", **options: bool) -> KeptFiles:
    files = KeptFiles(folder, "test", **options)
    files.text(name, text)
    files.finish()
    return files


def contents(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file() and ".written" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


@pytest.mark.parametrize(
    ("before", "edited", "after", "options", "found", "said"),
    [
        (None, None, "1", {}, {"a.md": "1"}, []),
        ("1", None, "2", {}, {"a.md": "2"}, []),
        ("1", "mine", "1", {}, {"a.md": "mine"}, ["a.md was changed by a person and is kept"]),
        (
            "1", "mine", "2", {}, {"a.md": "mine", "a.new.md": "2"},
            ["a.md was changed by a person and is kept; the new one is a.new.md"],
        ),
        ("1", "mine", "2", {"beside": False}, {"a.md": "mine"}, ["a.md was changed by a person and is kept"]),
        ("1", "mine", "2", {"overwrite": True}, {"a.md": "2"}, []),
        ("1", "2", "2", {}, {"a.md": "2"}, []),
        (None, "mine", "1", {}, {"a.md": "mine", "a.new.md": "1"}, [
            "a.md was changed by a person and is kept; the new one is a.new.md"
        ]),
    ],
)  # fmt: skip
def test_a_file(tmp_path, before, edited, after, options, found, said):
    if before is not None:
        run(tmp_path, before)
    if edited is not None:
        (tmp_path / "a.md").write_text(edited)
    for _ in range(2):
        assert run(tmp_path, after, **options).remarks() == said
        assert contents(tmp_path) == found


def test_what_is_written_beside_is_kept_too_once_a_person_changed_it(tmp_path):
    run(tmp_path, "1")
    (tmp_path / "a.md").write_text("mine")
    run(tmp_path, "2")
    (tmp_path / "a.new.md").write_text("mine too")
    run(tmp_path, "3")
    assert contents(tmp_path) == {"a.md": "mine", "a.new.md": "mine too", "a.new-2.md": "3"}


def folder_run(folder: Path, **texts: str) -> list[str]:
    files = KeptFiles(folder, "test")
    with files.directory("model") as unfinished:
        for name, text in texts.items():
            (unfinished / name).write_text(text)
        assert not (folder / "model").exists() or contents(folder / "model")  # it is there at every moment
    return files.remarks()


@pytest.mark.parametrize("changed", ["README", "weights", "added"])
@pytest.mark.parametrize("again", ["1", "2"])
def test_a_folder(tmp_path, changed, again):
    assert folder_run(tmp_path, README="1", weights="1") == []
    assert folder_run(tmp_path, README="1", weights="1") == []
    (tmp_path / "model" / changed).write_text("mine")
    theirs = contents(tmp_path / "model")
    said = folder_run(tmp_path, README=again, weights="1")
    if again == "1":  # nothing new: it stays where it is
        assert said == ["model was changed by a person and is kept"]
        assert contents(tmp_path) == {f"model/{name}": text for name, text in theirs.items()}
        return
    assert said == ["model.kept was changed by a person and is kept; the new one is model"]
    assert contents(tmp_path / "model.kept") == theirs
    assert contents(tmp_path / "model") == {"README": "2", "weights": "1"}
    assert folder_run(tmp_path, README="3", weights="1") == []
    (tmp_path / "model/README").write_text("mine again")
    folder_run(tmp_path, README="4", weights="1")
    assert contents(tmp_path / "model.kept-2") == {"README": "mine again", "weights": "1"}


def test_a_folder_that_lost_a_file_is_made_whole(tmp_path):
    folder_run(tmp_path, **{"a": "1", "b": "2"})
    (tmp_path / "model/a").unlink()
    assert folder_run(tmp_path, **{"a": "1", "b": "2"}) == []
    assert contents(tmp_path) == {"model/a": "1", "model/b": "2"}


def test_a_folder_that_fails_is_left_as_it_was(tmp_path):
    folder_run(tmp_path, README="1")
    with pytest.raises(OSError, match="full"), KeptFiles(tmp_path, "test").directory("model"):
        raise OSError("full")
    assert contents(tmp_path) == {"model/README": "1"}


def a_folder(path: Path) -> None:
    path.mkdir()


def a_link_to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [a_folder, os.mkfifo, a_link_to_nowhere])
def test_what_is_no_file_is_named_and_kept(tmp_path, make):
    make(tmp_path / "a.md")
    files = run(tmp_path, "1")
    with pytest.raises(PartCLIPSegError, match=r"a\.md cannot be read or written"):
        files.raise_failed()
    assert os.path.lexists(tmp_path / "a.md")
    assert not (tmp_path / "a.md").is_file()


def test_a_damaged_record_is_named(tmp_path):
    run(tmp_path, "1")
    (tmp_path / ".written/test.jsonl").write_text("[1]\n")
    with pytest.raises(PartCLIPSegError, match=r"test\.jsonl is damaged at line 1: delete it; files whose content"):
        KeptFiles(tmp_path, "test")


@pytest.mark.parametrize("entry", [{"digest": digest(b"own")}, {"sha256": sha256(b"own").hexdigest()}])
def test_own_files_are_told_by_their_digests(tmp_path, entry):
    """Records of earlier releases of `predict` have another digest."""
    (tmp_path / "a/b").mkdir(parents=True)
    record = Journal(tmp_path / "record.jsonl")
    record.append([{"file": "a/b/c.md", **entry}])
    (tmp_path / "a/b/c.md").write_bytes(b"own")
    (tmp_path / "other.md").write_bytes(b"own")
    files = WrittenFiles(tmp_path, record)
    assert files.is_own(tmp_path / "a/b/c.md")
    assert not any(files.is_own(path) for path in (tmp_path / "other.md", tmp_path / "a/b", tmp_path.parent))
    (tmp_path / "a/b/c.md").write_bytes(b"mine")
    assert not files.is_own(tmp_path / "a/b/c.md")
    files.add("a/b/c.md", digest(b"mine"))
    assert WrittenFiles(tmp_path, record).is_own(tmp_path / "a/b/c.md")


def test_a_digest_that_could_not_be_recorded_is_recorded_by_the_next_call(tmp_path):
    record = Journal(tmp_path / "record.jsonl")
    files = WrittenFiles(tmp_path, record)
    (tmp_path / "a.md").write_bytes(b"own")
    record.path.mkdir()
    with pytest.raises(OSError, match=r"record\.jsonl"):
        files.add("a.md", digest(b"own"))
    assert not files.is_own(tmp_path / "a.md")
    record.path.rmdir()
    files.add("a.md", digest(b"own"))
    assert WrittenFiles(tmp_path, record).is_own(tmp_path / "a.md")


def test_free_places(tmp_path):
    path = tmp_path / "a"
    assert is_free(path, ())
    path.write_bytes(b"own")
    assert file_digest(path) == digest(b"own")
    assert is_free(path, {digest(b"own")})
    assert not is_free(path, ())
    assert is_free(path, (), overwrite=True)
    with pytest.raises(IsADirectoryError):
        is_free(tmp_path, ())
