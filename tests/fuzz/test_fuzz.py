"""A short run of the fuzzer over every parser; a long one is a command (see `targets`)."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNS = 30_000
SECONDS = 6


@pytest.mark.skipif(find_spec("atheris") is None, reason="needs atheris (x86-64, Python below 3.14)")
def test_no_parser_falls_over(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    ended = subprocess.run(
        [sys.executable, ROOT / "tests/fuzz/targets.py", corpus, f"-runs={RUNS}", f"-max_total_time={SECONDS}", "-max_len=600",
         "-seed=1", f"-artifact_prefix={tmp_path}/"],
        check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout[-1500:] + ended.stderr[-3000:]
    assert "DONE" in ended.stderr or "Done" in ended.stderr
