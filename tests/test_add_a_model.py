"""docs/add_a_model.md, done: a file in an empty folder, trained, resumed, evaluated and sampled by
the commands, from that folder.
"""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from command_helpers import ROOT

pytestmark = pytest.mark.integration


def run(folder, line, cache):
    """A line of the page in a folder that is not the checkout's."""
    assert line.startswith("python ")
    words = [sys.executable, *line.split()[1:], f"--compilation_cache={cache}"]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    return subprocess.run(
        words, cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False
    )


def test_the_page_works_from_an_empty_folder(tmp_path):
    page = (ROOT / "docs" / "add_a_model.md").read_text()
    source = re.search(r"```python\n(.*?)```", page, re.S)[1]
    blocks = re.findall(r"```sh\n(.*?)```", page, re.S)
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "mine.py").write_text(source)
    cache = tmp_path / "cache"
    # 1. train, and go on
    first, again = (line.partition("#")[0].strip() for line in blocks[0].strip().splitlines())
    few = "--config.train.num_steps=200"
    done = run(folder, f"{first} {few}", cache)
    assert done.returncode == 0, done.stderr
    assert "ELBO" in done.stdout
    done = run(folder, f"{again} {few}", cache)
    assert done.returncode == 0, done.stderr
    assert "is complete" in done.stderr
    # 2. a folder runs nothing by itself
    code, evaluate, sample = blocks[1].strip().splitlines()
    names = code.removeprefix("CODE=")
    refused = run(folder, evaluate.partition(" --allow_code")[0], cache)
    assert refused.returncode == 2
    assert "a folder runs nothing by itself" in refused.stderr
    for line in (evaluate, sample):
        done = run(folder, line.replace("$CODE", names), cache)
        assert done.returncode == 0, done.stderr
    with np.load(folder / "runs" / "waves" / "samples" / "samples.npz") as arrays:
        assert arrays["samples"].shape == (64, 8)
    # 3. code that has changed since is refused
    (folder / "mine.py").write_text(source + "\n# another\n")
    done = run(folder, evaluate.replace("$CODE", names), cache)
    assert done.returncode == 2
    assert "mine.py has changed since" in done.stderr
    # 4. one piece beside ours
    [line] = blocks[2].strip().splitlines()
    small = "--config.model.network.hidden=(8,) --config.optim.learning_rate.warmup_steps=2"
    steps = " ".join(f"--config.train.{name}=20" for name in ("num_steps", "log_every"))
    every = "--config.train.eval_every=20 --config.train.checkpoint_every=20 --workdir=runs/one"
    done = run(folder, f"{line} {small} {steps} {every}", cache)
    assert done.returncode == 0, done.stderr
