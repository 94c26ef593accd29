"""docs/deploy.md names options, values and unit settings that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from partclipseg.apps.serve.command import TOKEN_VARIABLE, Serve

PAGE = (Path(__file__).resolve().parents[3] / "docs/deploy.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def test_options_of_the_service_exist():
    (command,) = re.findall(r"^ExecStart=\S+/partclipseg serve (.*)$", PAGE, re.M)
    known = {f"--{field.name.replace('_', '-')}" for field in fields(Serve)}
    assert set(re.findall(r"--[a-z-]+", command)) <= known
    assert set(re.findall(r"`(--(?:connections|max|timeout|queue)[a-z-]*)`", PAGE)) <= known
    assert f"{TOKEN_VARIABLE}=" in PAGE


def test_the_limits_fit_each_other():
    serve = Serve()
    (size,) = re.findall(r"client_max_body_size (\d+)m;", PAGE)
    assert int(size) * 2**20 > serve.max_bytes * 4 / 3 + 64_000 + 1000 * serve.max_classes
    for name in ("TimeoutStopSec=", "proxy_read_timeout "):
        assert int(re.findall(rf"{name}(\d+)", PAGE)[0]) > serve.timeout


def test_metrics_exist():
    pytest.importorskip("prometheus_client")
    from partclipseg.apps.serve.metrics import Metrics

    metrics = Metrics()
    metrics.requests.labels("/v1/segment", "503").inc()
    text = metrics.text().decode()
    named = set(re.findall(r"`((?:partclipseg|process)_[a-z_]+)", PAGE))
    assert named
    assert [name for name in named if name not in text] == []


def test_systemd_takes_the_unit(tmp_path: Path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    (unit,) = (block for block in blocks("ini") if "[Service]" in block)
    program = tmp_path / "partclipseg"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = tmp_path / "partclipseg@.service"
    path.write_text(unit.replace("/opt/partclipseg/bin/partclipseg", str(program)))
    answer = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert str(path) not in answer.stderr
    assert answer.returncode == 0, answer.stderr


def test_nginx_takes_the_configuration(tmp_path: Path):
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not nginx or not shutil.which("openssl"):
        pytest.skip("needs nginx and openssl")
    key, certificate = tmp_path / "key", tmp_path / "pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=parts.example.org"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], capture_output=True, check=True)
    (block,) = blocks("nginx")
    block = re.sub(r"ssl_certificate_key .*;", f"ssl_certificate_key {key};", block)
    block = re.sub(r"ssl_certificate  .*;", f"ssl_certificate {certificate};", block)
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\n{block}}}\n")
    answer = subprocess.run(
        [nginx, "-t", "-c", tmp_path / "nginx.conf", "-e", tmp_path / "log"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
