"""What a user's first line meets."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import partclipseg
from partclipseg.apps.cli import COMMANDS, main
from partclipseg.models.clipseg.config import CLIPSegBaselineConfig
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.partclipseg.config import PartCLIPSegConfig


def test_importing_is_light():
    heavy = ("torch", "transformers", "gradio", "fastapi", "ray", "onnx", "scipy", "matplotlib", "torchvision", "cv2")
    code = f"import sys, partclipseg; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_help_texts_are_light():
    """PyTorch and transformers take seconds to import."""
    code = (
        "import sys; from partclipseg.apps.cli import COMMANDS, main\n"
        "codes = [main([command, '--help']) for command in COMMANDS]\n"
        "sys.exit(any(codes) or bool({'torch', 'transformers', 'accelerate'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_mistyped_model_is_told_before_pytorch_is_imported(tmp_path: Path):
    calls = [
        ["predict", "photo.jpg", "--vocabulary", "dog: head", "--model", "models/pascl"],
        ["label", "photos", "--vocabulary", "dog: head", "--output", "labels", "--model", "models/pascl"],
        ["evaluate", "models/pascl", "--dataset", "partshapes"],
        ["export", "models/pascl", "--output", "onnx"],
        ["serve", "--model", "partshapes", "models/pascl"],
    ]
    code = (
        "import sys; from partclipseg.apps.cli import main\n"
        f"codes = [main(call) for call in {calls!r}]\n"
        "sys.exit(codes != [1] * len(codes) or bool({'torch', 'transformers', 'gradio'} & set(sys.modules)))"
    )
    (tmp_path / "models" / "pascal").mkdir(parents=True)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("there is no directory 'models/pascl'; did you mean models/pascal?") == len(calls)


def test_models_and_segmenter_do_without_the_extras(model_directory: Path, tmp_path: Path):
    """In a process that has imported nothing yet; transformers' auto classes know the families there."""
    values = PartCLIPSegConfig.from_pretrained(model_directory).to_dict()
    values.pop("model_type")
    CLIPSegBaseline(CLIPSegBaselineConfig(**values)).save_pretrained(tmp_path)
    heavy = ("gradio", "fastapi", "ray", "onnx", "onnxruntime", "scipy", "matplotlib", "torchvision", "cv2")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({heavy!r}));"  # None in sys.modules: importing it fails
        "import partclipseg; from transformers import AutoConfig, AutoModel\n"
    )
    for family, directory in (("PartCLIPSegModel", model_directory), ("CLIPSegBaseline", tmp_path)):
        code += (
            f"cls = partclipseg.{family}\n"
            f"assert type(AutoConfig.from_pretrained({str(directory)!r})) is cls.config_class\n"
            f"assert type(AutoModel.from_pretrained({str(directory)!r})) is cls\n"
        )
    code += "[getattr(partclipseg, name) for name in partclipseg.__all__]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names():
    for name in partclipseg.__all__:
        assert getattr(partclipseg, name).__doc__
        assert name in dir(partclipseg)
    with pytest.raises(AttributeError, match="nothing"):
        _ = partclipseg.nothing


def test_files_that_are_no_code_are_packaged():
    """An editable installation would not miss them, an ordinary one would."""
    root = Path(__file__).resolve().parents[1]
    tools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]
    package = root / "src/partclipseg"
    patterns = tools["setuptools"]["package-data"]["partclipseg"]
    packaged = {path for pattern in patterns for path in package.glob(pattern)}
    files = {path for path in package.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert files <= packaged


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"partclipseg {command}" in text


@pytest.mark.parametrize(
    ("arguments", "code", "stream", "words"),
    [
        ([], 2, "out", "partclipseg predict photo.jpg"),
        (["--help"], 0, "out", "partclipseg predict photo.jpg"),
        (["--version"], 0, "out", partclipseg.__version__),
        (["predikt"], 2, "err", "no command 'predikt'"),
        (["convert"], 2, "err", "vocabulary"),
        (["convert", "a.pth", "--output", "out", "--vocabulary", "dog: ear"], 1, "err", "there is no file a.pth"),
        (["convert", "a.pth", "--output", "out", "--vocabulary", "dog"], 2, "err", "'dog' has no object"),
    ],
)
def test_exit_codes(arguments, code, stream, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    assert words in getattr(capsys.readouterr(), stream)
