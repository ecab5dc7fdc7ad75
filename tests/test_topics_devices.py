"""Topic models on one device and on eight."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
PROGRAM = Path(__file__).with_name("topics_program.py")


@pytest.mark.parametrize("method", ["partly", "svi"])
def test_eight_devices_have_the_numbers_of_one(method):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    env = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[1]), "XLA_FLAGS": flags}
    command = [sys.executable, str(PROGRAM), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == 8
    assert found["topics"] < 2e-3  # float32 sums in another order
    assert found["history"] < 1e-5
    assert found["alpha"] < 1e-3
