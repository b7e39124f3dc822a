"""Training, testing and pixel metrics need none of the packages for pages, LPIPS and FID."""

import subprocess
import sys

from tests.conftest import REPOSITORY

BLOCKED = ("dominate", "lpips", "pytorch_fid", "visdom")


def test_commands_import_without_optional_packages():
    code = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED}))\nimport train, test, metrics.metrics"
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
