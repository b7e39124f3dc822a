"""What the README says is true: its runnable commands run, its map is whole, the list of options is fresh."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
RUNNABLE = re.findall(r"<!-- runnable -->\n```\n(.*?)```", README, re.DOTALL)
EXAMPLES = re.findall(r"```python\n# (\S+)\n(.*?)```", README, re.DOTALL)
PROGRAMS = ("models", "data", "poses", "metrics", "options", "util", "scripts")


def tracked_files() -> list[str]:
    """Files of the repository, those not yet committed included; without git (a downloaded archive) all sources."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode == 0:
        return [name for name in listed.stdout.splitlines() if (REPOSITORY / name).is_file()]
    folders = [REPOSITORY / name for name in (*PROGRAMS, "docs", "tests", "dataset")]
    files = [*REPOSITORY.glob("*"), *(path for folder in folders for path in folder.rglob("*"))]
    return [str(p.relative_to(REPOSITORY)) for p in files if p.is_file() and "__pycache__" not in p.parts]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the repository with the README's examples in place."""
    root = tmp_path_factory.mktemp("clone")
    for name in tracked_files():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, root / name)
    for name, content in EXAMPLES:
        assert not (root / name).exists(), f"{name}: the example would replace a real file"
        (root / name).write_text(content, encoding="utf-8")
    return root


def test_runnable_blocks(clone):
    """In the README's order, in one clone; the example's model trained with its own flag."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in RUNNABLE:
        done = subprocess.run(
            ["bash", "-ec", block], cwd=clone, capture_output=True, text=True, timeout=600,
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "2"},
        )  # fmt: skip
        assert done.returncode == 0, block + done.stdout + done.stderr
    log = (clone / "checkpoints/DPTN_mine/train_opt.txt").read_text()
    assert "model: DPTNTV" in log
    assert "lambda_tv: 1.0" in log
    assert (clone / "checkpoints/DPTN_mine/latest_net_G.pth").exists()


def test_there_are_blocks_and_examples():
    assert len(RUNNABLE) >= 2
    assert [name for name, _ in EXAMPLES] == ["data/mine_dataset.py", "models/dptntv_model.py"]


def test_map_names_every_file():
    """Each file of the programs is in the map, by its name, and each path in the map exists."""
    rows = README.split("## Map")[1].split("\n## ")[0]
    named = set(re.findall(r"`([\w./]+)`", rows))
    files = [Path(name) for name in tracked_files() if name.endswith((".py", ".sh"))]
    files = [file for file in files if file.parts[0] in PROGRAMS or len(file.parts) == 1]
    names = {Path(name).name for name in named}
    for file in files:
        whole_folder = f"{file.parts[0]}/" in named
        a_script = re.fullmatch(r"(train|test|eval)_(fashion|market).sh|benchmark_\w+.py", file.name)
        package = file.name == "__init__.py"
        assert file.name in names or whole_folder or a_script or package, f"{file} is not in the README's map"
    known = {file.name for file in files} | {"options.md"}
    for name in named:
        assert name.endswith("/") or Path(name).name in known, f"{name} is in the README's map, but not here"


def test_paths_and_anchors_exist():
    anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", README, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert (REPOSITORY / target).exists(), target


def test_options_page_is_fresh(command, tmp_path):
    """On every machine, whoever's it is."""
    done = command("scripts/list_options.py", "--check", HOME=str(tmp_path), XDG_CACHE_HOME="")
    assert done.returncode == 0, done.stderr


def test_flags_in_the_readme_exist():
    """Every --flag that the README names is a flag of some program here."""
    programs = [name for name in tracked_files() if name.endswith((".py", ".sh")) and not name.startswith("tests/")]
    sources = "".join((REPOSITORY / name).read_text(encoding="utf-8") for name in programs)
    sources += "".join(content for _, content in EXAMPLES)
    elsewhere = {"--nproc_per_node", "--nnodes", "--rdzv_backend", "--rdzv_endpoint", "--help"}
    for flag in set(re.findall(r"(?<![\w-])--[a-zA-Z_]+", README)) - elsewhere:
        assert f'"{flag}"' in sources or flag == "--quick", flag
