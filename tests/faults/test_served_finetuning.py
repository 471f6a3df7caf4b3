"""What ends at once while a served policy is fine-tuned by the recipe; the rest by hand."""

import subprocess
import sys

import pytest
import serve_anywhere

pytestmark = [pytest.mark.slow, pytest.mark.metaworld]


def test_a_run_goes_on_or_is_resumed():
    command = [sys.executable, serve_anywhere.__file__, "--short", "--repeat", "1"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n") == 2 + len(serve_anywhere.AT_ONCE)
