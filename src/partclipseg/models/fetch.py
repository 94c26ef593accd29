"""Models by name: fetched, checked, converted and kept once."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import is_file, is_regular, refusal, remove_temporary, sha256, write_text
from partclipseg.models.convert import fitting_tokenizer, write_model
from partclipseg.models.directory import load_tokenizer
from partclipseg.models.download import (
    by_hand,
    check_length,
    check_room,
    from_drive,
    from_hub,
    parts_of,
    refuse_offline,
)
from partclipseg.models.fetched import check_place, remove_directory, write_origin
from partclipseg.models.names import find_snapshot
from partclipseg.models.reading import check_file
from partclipseg.models.registry import (
    FAMILIES,
    built_in_model,
    find_foreign,
    is_built_in,
    load_model,
    read_config,
)
from partclipseg.models.released import HOME_VARIABLE, Release, find_release, home, is_released
from partclipseg.models.tokenizer import clip_tokenizer
from partclipseg.vocabulary import Vocabulary

logger = logging.getLogger(__name__)


def find_model(name: str | Path | None) -> str | Path:
    """Return the directory or hub name that a model's name stands for; None is the built-in model.

    A name of the catalogue is fetched if it is not here, unless there is a directory of that name. Raises
    `PartCLIPSegError` where it cannot be had.
    """
    if name is None or is_built_in(name):
        return built_in_model()
    return fetch(str(name)) if is_released(name) else find_snapshot(name)


def fetch(name: str, keep_original: bool = False, accept_changed: bool = False) -> Path:
    """Return the directory of a model of the catalogue; it is fetched, checked and converted if it is not here.

    Args:
        name: as `partclipseg models` lists it.
        keep_original: keep the ``.pth`` file, in ``originals`` of `home`.
        accept_changed: take a file whose SHA-256 is not that of the first fetch.

    Raises `PartCLIPSegError` with the remedy, and `UsageError` for an unknown name, and for a wish that a model which
    is here already, or is no single file, cannot fulfil.
    """
    release = find_release(name)
    if keep_original and (release.built_in or release.hub):
        raise UsageError(f"{name} has no .pth file to keep: leave out --keep-original")
    if release.built_in:
        return Path(built_in_model())
    if release.is_here:
        if accept_changed or (keep_original and not is_file(release.original)):
            raise UsageError(
                f"{name} is here already, and nothing is fetched: give `partclipseg models --remove {name}` first"
            )
        return _finished(release)
    _check_method(release)
    if not accept_changed:
        checksum_of(release)  # a damaged one is told before the download
    if not release.original.is_file() and not release.download.is_file():
        refuse_offline(release)
    with _claimed(release):
        if release.is_here:  # another process has fetched it meanwhile
            return _finished(release)
        check_place(release)
        if release.hub:
            _fetch_from_hub(release, accept_changed)
        else:
            _fetch_from_drive(release, keep_original, accept_changed)
    return _finished(release)


def add(name: str, path: Path, accept_changed: bool = False) -> Path:
    """Take a file that was fetched by hand as the file of `name`; the file itself is left alone.

    Returns the model's directory. Raises as `fetch` does.
    """
    release = find_release(name)
    if release.built_in or release.hub:
        raise UsageError(f"{name} is no single file: {'it is built in' if release.built_in else by_hand(release)}")
    _check_method(release)
    if release.is_here:
        raise UsageError(f"{name} is here already: give `partclipseg models --remove {name}` first")
    check_file(path)
    check_length(release, path.stat().st_size, str(path))
    with _claimed(release):
        check_place(release)
        check_room(release, path.stat().st_size, home())
        _convert(release, path, accept_changed)
    return release.directory


def remove(name: str) -> Path | None:
    """Delete what was fetched for `name`; the SHA-256 of its file is remembered.

    Returns where the files are that a person put into the model's directory or changed there; None if there are none.
    Raises `UsageError` for the built-in model and for a name that is not here.
    """
    release = find_release(name)
    if release.built_in:
        raise UsageError(f"{name} is a part of this package and cannot be removed")
    found = [release.download, release.original, *parts_of(release.download)]
    found = [path for path in found if os.path.lexists(path)]
    if not found and not os.path.lexists(release.directory):
        raise UsageError(f"{name} is not here: there is nothing to remove")
    with _claimed(release):
        for path in found:
            try:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            except OSError as error:
                raise PartCLIPSegError(refusal(error, path)) from error
        return remove_directory(release)


def checksum_of(release: Release) -> str | None:
    """Return the SHA-256 of the file that was fetched for a model; None if none ever was.

    Raises `PartCLIPSegError` where what was noted is damaged.
    """
    try:
        noted = release.checksum.read_bytes().decode("ascii", "replace").strip().lower()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise PartCLIPSegError(refusal(error, release.checksum)) from error
    if not re.fullmatch("[0-9a-f]{64}", noted):
        raise PartCLIPSegError(
            f"{release.checksum} is damaged, it holds no SHA-256: delete it, and the next file of {release.name} is "
            "taken for its first"
        )
    return noted


def _fetch_from_drive(release: Release, keep_original: bool, accept_changed: bool) -> None:
    try:
        clip_tokenizer()  # a few files, before the large one
    except PartCLIPSegError as error:
        raise PartCLIPSegError(f"{error}; where there is no network, also {by_hand(release)}") from error
    path = release.original
    if not is_regular(path):
        path = release.download
        if not is_regular(path):
            if release.megabytes is not None:
                check_room(release, 2e6 * release.megabytes, home())
            _say_what_is_fetched(release)
            from_drive(release, path)
        try:
            check_file(path)
        except PartCLIPSegError as error:
            path.unlink(missing_ok=True)
            raise PartCLIPSegError(f"what Google Drive gave is not kept: {error}; or {by_hand(release)}") from error
        if keep_original:
            release.original.parent.mkdir(parents=True, exist_ok=True)
            path = path.replace(release.original)
    _convert(release, path, accept_changed, discard=True)


def _convert(release: Release, path: Path, accept_changed: bool, discard: bool = False) -> None:
    """Check a file against the catalogue and the method, and write the model's directory.

    `discard`: delete the file if it is the wrong one.
    """
    digest = sha256(path)
    words = None if release.vocabulary is None else Vocabulary.load(release.vocabulary)
    try:
        _compare(release, digest, accept_changed)
        # Without the entry's values, which fit its own method only.
        foreign, settings = find_foreign(path, vocabulary=words)
        if settings.model_type != release.method:
            raise PartCLIPSegError(
                f"{path} holds a model of type {settings.model_type!r}, and {release.name} is of type "
                f"{release.method!r}: give the file that {release.page} offers"
            )
        if release.config is not None:
            foreign, settings = find_foreign(path, release.config, words)
        model = foreign.load_released(path, settings)
    except PartCLIPSegError as error:
        if discard:
            path.unlink(missing_ok=True)
            raise PartCLIPSegError(f"the file that was fetched for {release.name} is not kept: {error}") from error
        raise
    tokenizer = fitting_tokenizer(clip_tokenizer(), model.config.text_config)
    length = path.stat().st_size
    write_model(
        model, tokenizer, release.directory, words, lambda folder: write_origin(folder, release, digest, length)
    )
    _remember(release, digest)


def _fetch_from_hub(release: Release, accept_changed: bool) -> None:
    if release.megabytes is not None:
        check_room(release, 1e6 * release.megabytes, home())
    _say_what_is_fetched(release)
    folder = release.download
    weights = from_hub(release, folder)
    digest = sha256(weights)
    try:
        _compare(release, digest, accept_changed)
        model = load_model(folder)
        load_tokenizer(folder, model.text_config)
        kind = read_config(folder).get("model_type")
        if kind != release.method:
            raise PartCLIPSegError(f"{release.hub} holds a model of type {kind!r}, not {release.method!r}")
    except PartCLIPSegError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise PartCLIPSegError(f"what was fetched for {release.name} is not kept: {error}") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    write_origin(folder, release, digest, weights.stat().st_size)
    release.directory.parent.mkdir(parents=True, exist_ok=True)
    folder.replace(release.directory)
    _remember(release, digest)


def _finished(release: Release) -> Path:
    """Delete the file that a process left which was killed after the conversion, and return the model's directory."""
    with suppress(OSError):
        release.download.unlink(missing_ok=True)
    return release.directory


def _check_method(release: Release) -> None:
    if release.method not in FAMILIES:
        raise PartCLIPSegError(
            f"{release.name} needs the method {release.method}, which this version does not have: name another model, "
            "or install a version that has it"
        )


@contextmanager
def _claimed(release: Release) -> Iterator[None]:
    """Make the folders, keep other processes from the same model, and delete what killed ones left half written."""
    lock = FileLock(release.download.with_name(f"{release.name}.lock"))
    try:
        release.download.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.warning("another process is fetching %s: waiting for it", release.name)
            lock.acquire()
    except OSError as error:
        raise PartCLIPSegError(
            f"{refusal(error, home())}; {HOME_VARIABLE} names another folder for fetched models"
        ) from error
    try:
        for folder in (home(), release.directory.parent):
            remove_temporary(folder, recursive=False)
        yield
    except OSError as error:
        raise PartCLIPSegError(refusal(error, home())) from error
    finally:
        lock.release()


def _say_what_is_fetched(release: Release) -> None:
    size = "of unknown size" if release.megabytes is None else f"about {release.megabytes:,.3g} MB"
    logger.warning("fetching %s, %s, from %s, to %s", release.name, size, release.page, home())


def _compare(release: Release, digest: str, accept_changed: bool) -> None:
    known = None if accept_changed else checksum_of(release)
    if known not in (None, digest):
        raise PartCLIPSegError(
            f"the file of {release.name} is another one than at the first fetch (SHA-256 {digest}, then {known}): if "
            "its authors have replaced it, give --accept-changed beside `partclipseg models --fetch "
            f"{release.name}` or `--add {release.name} FILE.pth`"
        )


def _remember(release: Release, digest: str) -> None:
    write_text(release.checksum, f"{digest}\n")
    logger.warning("%s is here: %s, SHA-256 of its file %s", release.name, release.directory, digest)
