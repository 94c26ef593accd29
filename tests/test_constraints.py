"""constraints.txt: versions of all packages with which the tests last ran; `pip install -c constraints.txt` takes them.

    python tests/test_constraints.py     # writes it from the installed packages
"""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "constraints.txt"


def direct() -> Iterator[Requirement]:
    """The requirements of pyproject.toml, with those of all extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for some in (project["dependencies"], *project["optional-dependencies"].values()):
        for requirement in map(Requirement, some):
            marker = requirement.marker
            if requirement.name != "partclipseg" and (marker is None or marker.evaluate()):
                yield requirement


def installed() -> dict[str, str]:
    """Name and version of each installed package that is required, directly or by others; they must fit each other."""
    found: dict[str, str] = {}
    waiting = list(direct())
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        try:
            its = distribution(requirement.name)
        except PackageNotFoundError:
            continue
        assert requirement.specifier.contains(its.version), f"{requirement} excludes {its.version}, which is installed"
        if name in found and not requirement.extras:
            continue
        found[name] = str(Version(its.version).public)  # without +cpu, which stands for a build
        for extra in (None, *requirement.extras):
            environment = {**default_environment(), "extra": extra or ""}
            for text in its.requires or ():
                needed = Requirement(text)
                if (needed.marker is None or needed.marker.evaluate(environment)) and (
                    extra is None or "extra" in str(needed.marker)
                ):
                    waiting.append(needed)
    return dict(sorted(found.items()))


def read() -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in FILE.read_text().splitlines())
    return dict(line.split("==") for line in lines if line)


def test_every_requirement_has_a_tested_version():
    tested = read()
    for requirement in direct():
        name = canonicalize_name(requirement.name)
        assert name in tested, f"{name}: run python tests/test_constraints.py"
        assert requirement.specifier.contains(tested[name]), f"{requirement} excludes the tested {tested[name]}"


def test_the_versions_are_exact_and_sorted():
    tested = read()
    assert list(tested) == sorted(tested)
    assert all(str(Version(version)) == version for version in tested.values())


def main() -> None:
    lines = [f"{name}=={version}" for name, version in installed().items()]
    head = f"# Versions with which the tests ran, on Python {platform.python_version()}, {platform.system()}; they are"
    head += "\n# made by `python tests/test_constraints.py`, and taken by `pip install -c constraints.txt -e .`.\n"
    FILE.write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
