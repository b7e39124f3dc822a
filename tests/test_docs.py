"""What README.md and docs/ say holds: links, flags, file names, the paper's commands, and blocks that are run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PAGES = {str(p.relative_to(REPOSITORY)): p for p in [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/*.md"))]}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
EVERYTHING = "\n".join(TEXTS.values())
RUNNABLE = re.findall(r"<!-- runnable -->\n+```\w*\n(.*?)```", EVERYTHING, re.DOTALL)
EXAMPLES = re.findall(r"```python\n# (\S+\.py)\n(.*?)```", EVERYTHING, re.DOTALL)  # files to be created by the reader
PROGRAMS = ("data", "inference", "metrics", "models", "options", "scripts", "util")
OTHER_PROGRAMS_FLAGS = {"--nproc_per_node", "--nnodes", "--rdzv_backend", "--rdzv_endpoint", "--help"}  # torchrun


def product_files() -> list[Path]:
    folders = [path for name in PROGRAMS for path in (REPOSITORY / name).rglob("*")]
    paths = sorted(path for path in [*REPOSITORY.glob("*.py"), *folders] if path.suffix in (".py", ".sh"))
    return [path.relative_to(REPOSITORY) for path in paths]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_is_short():
    assert TEXTS["README.md"].count("\n") <= 200
    assert PAGES["README.md"].stat().st_size <= 12_000


@pytest.mark.parametrize("name", TEXTS)
def test_links_and_anchors_exist(name):
    targets = re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]) + re.findall(r'(?:src|href)="([^"]+)"', TEXTS[name])
    for target in targets:
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        path = (PAGES[name].parent / file).resolve() if file else PAGES[name]
        assert path.exists(), f"{name}: {target}"
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{name}: {target}"


def test_overview_names_every_file():
    named = set(re.findall(r"`([\w./]+)`", TEXTS["docs/overview.md"]))
    names = {Path(name).name for name in named}
    missing = [str(file) for file in product_files() if file.name not in {*names, "__init__.py", "__main__.py"}]
    assert missing == []
    files = [name for name in named if name.endswith((".py", ".sh"))]
    known = {file.name for file in product_files()}
    assert [name for name in files if Path(name).name not in known and not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize("name", TEXTS)
def test_flags_exist(name):
    """Each --flag that a page names is a flag of some program here."""
    files = [REPOSITORY / file for file in product_files()]
    python = "".join(file.read_text(encoding="utf-8") for file in files if file.suffix == ".py")
    python += "".join(content for _, content in EXAMPLES)
    shell = "".join(file.read_text(encoding="utf-8") for file in files if file.suffix == ".sh")
    named = {flag.replace("--no-", "--") for flag in re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", TEXTS[name])}
    unknown = [flag for flag in named - OTHER_PROGRAMS_FLAGS if f'"{flag}"' not in python and flag not in shell]
    assert sorted(unknown) == []


@pytest.mark.parametrize("script", ["train_fashion", "train_market", "test_fashion", "test_market"])
def test_readme_has_the_command_of_the_script(script):
    """The four commands of the published code, with the flags in any order or line length."""
    line = (REPOSITORY / f"scripts/{script}.sh").read_text(encoding="utf-8").splitlines()[-1]
    words = line.removeprefix('exec "$python" ').removesuffix(' "$@"').split()
    joined = TEXTS["README.md"].replace("\\\n", " ")
    commands = [shlex.split(line) for line in joined.splitlines() if line.strip().startswith("python ")]
    assert ["python", *words] in commands


def test_options_page_is_up_to_date(command, tmp_path):
    """Also with another user's home folder."""
    done = command("scripts/list_options.py", "--check", HOME=str(tmp_path), XDG_CACHE_HOME="")
    assert done.returncode == 0, done.stderr


def test_a_data_set_and_a_model_are_shown_as_examples():
    assert {"data", "models"} <= {Path(name).parts[0] for name, _ in EXAMPLES}
    assert len(RUNNABLE) >= 2


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs in a folder of their own, together with the files of the examples."""
    root = tmp_path_factory.mktemp("copy")
    for file in product_files():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / file, root / file)
    for name, content in EXAMPLES:
        assert not (root / name).exists(), f"{name}: the example would replace a file"
        (root / name).write_text(content, encoding="utf-8")
    return root


@pytest.mark.slow
def test_runnable_blocks_run(copy):
    """In the pages' order, in one folder. The model of the example is trained with its own loss."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in RUNNABLE:
        done = subprocess.run(
            ["bash", "-ec", block], cwd=copy, capture_output=True, text=True, timeout=600,
            env={**os.environ, "PATH": path},
        )  # fmt: skip
        assert done.returncode == 0, block + done.stdout + done.stderr
    (options,) = copy.glob("checkpoints/*/train_opt.txt")
    assert "model: DPTNTV" in options.read_text()
    assert "lambda_tv: 1.0" in options.read_text()
    assert (options.parent / "latest_net_G.pth").exists()
