"""Downloads from Google Drive and from the Hugging Face hub that can be continued, each failure with its sentence."""

from __future__ import annotations

import glob
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests
from huggingface_hub import is_offline_mode

from partclipseg.errors import PartCLIPSegError, first_line
from partclipseg.files import refusal
from partclipseg.models.hub import OPTIONAL_FILES, WEIGHTS, Bar, HubError, hub_file, is_of_proxy, proxy, untrusted
from partclipseg.models.released import HOME_VARIABLE, Release

PATIENCE = 60.0
"""Seconds that Google Drive may take to begin with the file."""

_TIMEOUTS = (10, 60)
"""Seconds to wait for a connection, and for the next bytes."""

_TOLERANCE = 0.1
"""Share by which a file may be smaller or larger than the catalogue says."""


def by_hand(release: Release) -> str:
    """Say how to get the model without this download."""
    if release.hub:
        return (
            f"fetch config.json, the weights and the tokenizer's files by hand from {release.page} into a folder, and "
            "give that folder as --model"
        )
    return f"fetch the file by hand from {release.page}, then give `partclipseg models --add {release.name} FILE.pth`"


def refuse_offline(release: Release) -> None:
    """Raise `PartCLIPSegError` if the environment says that nothing may be fetched."""
    if is_offline_mode():
        raise PartCLIPSegError(
            f"{release.name} is not here, and HF_HUB_OFFLINE says that nothing may be fetched: unset it, or "
            f"{by_hand(release)}"
        )


def check_room(release: Release, needed: float, folder: Path) -> None:
    """Raise `PartCLIPSegError` if the disk has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise PartCLIPSegError(
            f"{release.name} needs {needed / 1e6:,.0f} MB in {folder} while it is fetched and converted, and "
            f"{free / 1e6:,.0f} MB are free: make room, or let {HOME_VARIABLE} name a folder on another disk"
        )


def check_length(release: Release, length: int, origin: str) -> None:
    """Raise `PartCLIPSegError` if a file's length is far from what the catalogue says."""
    if release.megabytes is not None and abs(length / 1e6 - release.megabytes) > _TOLERANCE * release.megabytes:
        raise PartCLIPSegError(
            f"{origin} has {length / 1e6:,.3g} MB, and the file of {release.name} has about {release.megabytes:,.3g} "
            f"MB: it is another file, or cut off; {by_hand(release)}"
        )


def from_drive(release: Release, path: Path) -> None:
    """Fetch a file from Google Drive to `path`; a broken download is continued by the next call."""
    from gdown import download
    from gdown.exceptions import DownloadCancelled, DownloadError, FileURLRetrievalError

    late = threading.Event()
    while True:
        before = _part_length(path)
        timer = threading.Timer(PATIENCE, late.set)
        timer.daemon = True
        timer.start()
        try:
            with _bar(release) as show:
                download(
                    id=release.drive,
                    output=str(path),
                    quiet=True,
                    use_cookies=False,
                    resume=True,
                    timeout=_TIMEOUTS,
                    progress=_watch(release, path.parent, timer, show),
                    cancel=late,
                )
        except DownloadCancelled:
            raise PartCLIPSegError(
                f"Google Drive gives a page in place of the file of {release.name}: {by_hand(release)}"
            ) from None
        except FileURLRetrievalError as error:
            raise PartCLIPSegError(_refused(release, str(error))) from error
        except DownloadError as error:
            if "byte range" in str(error):  # the file was replaced since, or the server cannot continue
                _remove_parts(path)
                if before:
                    continue
            _go_on_if_it_grew(release, path, before, error)
        except requests.exceptions.HTTPError as error:
            raise PartCLIPSegError(_refused(release, first_line(error))) from error
        except requests.exceptions.SSLError as error:
            raise PartCLIPSegError(
                f"{release.name} is not here, and {untrusted('Google Drive')}: {by_hand(release)}"
            ) from error
        except requests.exceptions.RequestException as error:
            if is_of_proxy(error):
                raise PartCLIPSegError(
                    f"{release.name} is not here, and {proxy()} does not let through: mend or unset the variable, or "
                    f"{by_hand(release)}"
                ) from error
            _go_on_if_it_grew(release, path, before, error)
        except PartCLIPSegError:
            _remove_parts(path)
            raise
        except (KeyError, ValueError, AssertionError) as error:  # gdown, for pages that it does not know
            raise PartCLIPSegError(_refused(release, f"{type(error).__name__} {first_line(error)}")) from error
        except OSError as error:
            raise PartCLIPSegError(refusal(error, path)) from error
        else:
            check_length(release, path.stat().st_size, "what Google Drive gave")
            return
        finally:
            timer.cancel()


def from_hub(release: Release, folder: Path) -> Path:
    """Fetch the files of a model on the hub to `folder`, and return the path of its weights."""
    repository = str(release.hub)
    try:
        if hub_file(repository, "config.json", folder) is None:
            raise HubError(f"{repository} on the Hugging Face hub has no config.json")
        found = (hub_file(repository, name, folder) for name in WEIGHTS)
        weights = next((path for path in found if path is not None), None)
        if weights is None:
            raise HubError(f"{repository} on the Hugging Face hub has neither of {', '.join(WEIGHTS)}")
        check_length(release, weights.stat().st_size, "what the hub gave")
        for name in OPTIONAL_FILES:
            hub_file(repository, name, folder)
    except HubError as error:
        raise PartCLIPSegError(f"{release.name} is not here, and {error}: {by_hand(release)}") from error
    return weights


@contextmanager
def _bar(release: Release) -> Iterator[Callable[[int, int | None], None]]:
    with Bar(unit="B", unit_scale=True, desc=release.name) as bar:

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _watch(
    release: Release, folder: Path, timer: threading.Timer, show: Callable[[int, int | None], None]
) -> Callable[[int, int | None], None]:
    """Make the function that is called after each block: the first call checks the length, which is known only then."""
    checked = False

    def watch(done: int, total: int | None) -> None:
        nonlocal checked
        if not checked:
            timer.cancel()
            if total is not None:
                check_length(release, total, "what Google Drive offers")
                check_room(release, 2 * total - done, folder)
            checked = True
        show(done, total)

    return watch


def _go_on_if_it_grew(release: Release, path: Path, before: int, error: Exception) -> None:
    """Return, to try again, if something was received; else raise `PartCLIPSegError`."""
    here = _part_length(path)
    if here > before:
        return
    unreachable = (requests.exceptions.ConnectionError, requests.exceptions.ConnectTimeout)
    if not here and isinstance(error, unreachable):
        raise PartCLIPSegError(_no_network(release)) from error
    raise PartCLIPSegError(
        f"the download of {release.name} broke off at {here / 1e6:,.3g} MB: give the same command again, and it goes "
        f"on from there; or {by_hand(release)}"
    ) from error


def _no_network(release: Release) -> str:
    return f"{release.name} is not here, and Google Drive cannot be reached: {by_hand(release)}"


def _refused(release: Release, said: str) -> str:
    """Say why Google Drive gave a page in place of the file; gdown hands on the page's words, not the status."""
    try:
        with requests.get(f"https://drive.google.com/uc?id={release.drive}", stream=True, timeout=_TIMEOUTS) as answer:
            status = answer.status_code
    except requests.exceptions.RequestException:
        status = 0
    if status in (404, 410):
        return (
            f"Google Drive has no file {release.drive}, which {release.name} is: it was moved or deleted; look for it "
            f"at {release.repository or 'its source'}, then give `partclipseg models --add {release.name} FILE.pth`"
        )
    if status == 429 or status >= 500:
        return f"Google Drive answers {status} for the file of {release.name}: try again later, or {by_hand(release)}"
    words = re.search(r"url:\s+(.*?)\s+You may still", said, re.DOTALL)
    why = " ".join(words[1].split()).rstrip(".") if words else said
    return f"Google Drive does not give the file of {release.name} ({why}): try again in a day, or {by_hand(release)}"


def parts_of(path: Path) -> list[Path]:
    """Return the files that gdown keeps of a broken download."""
    return list(path.parent.glob(f"{glob.escape(path.name)}????????.part"))


def _part_length(path: Path) -> int:
    return sum(part.stat().st_size for part in parts_of(path))


def _remove_parts(path: Path) -> None:
    for part in parts_of(path):
        with suppress(OSError):
            part.unlink()
