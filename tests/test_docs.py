"""What README.md and docs/ say is true: commands run, links lead somewhere, every file is described, flags exist."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

PAGES = {path: path.read_text(encoding="utf-8") for path in [REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md")]}
RUNNABLE = [b for text in PAGES.values() for b in re.findall(r"<!-- runnable -->\n+```\w*\n(.*?)```", text, re.DOTALL)]
EXAMPLES = re.findall(r"```python\n# (\S+)\n(.*?)```", PAGES[REPOSITORY / "docs/extending.md"], re.DOTALL)
PROGRAMS = ("models", "data", "inference", "metrics", "options", "util", "scripts")


def tracked_files() -> list[str]:
    """Files of the repository, those not yet committed included; without git (a downloaded archive) all sources."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode == 0:
        return [name for name in listed.stdout.splitlines() if (REPOSITORY / name).is_file()]
    folders = [REPOSITORY / name for name in (*PROGRAMS, "docs", "tests", "dataset")]
    files = [*REPOSITORY.glob("*"), *(path for folder in folders for path in folder.rglob("*"))]
    return [str(p.relative_to(REPOSITORY)) for p in files if p.is_file() and "__pycache__" not in p.parts]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the repository together with the example files of docs/extending.md."""
    root = tmp_path_factory.mktemp("clone")
    for name in tracked_files():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, root / name)
    for name, content in EXAMPLES:
        assert not (root / name).exists(), f"{name}: the example would replace a real file"
        (root / name).write_text(content, encoding="utf-8")
    return root


@pytest.mark.slow
def test_runnable_blocks_succeed(clone):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in RUNNABLE:
        done = subprocess.run(
            ["bash", "-ec", block], cwd=clone, capture_output=True, text=True, timeout=600,
            env={**os.environ, "PATH": path},
        )  # fmt: skip
        assert done.returncode == 0, block + done.stdout + done.stderr
    log = (clone / "checkpoints/DPTN_mine/train_opt.txt").read_text()
    assert "model: DPTNTV" in log
    assert "lambda_tv: 1.0" in log
    assert (clone / "checkpoints/DPTN_mine/latest_net_G.pth").exists()


def test_pages_have_runnable_blocks_and_examples():
    assert len(RUNNABLE) == 3
    assert [name for name, _ in EXAMPLES] == ["data/mine_dataset.py", "models/dptntv_model.py"]


def test_readme_is_short():
    text = PAGES[REPOSITORY / "README.md"]
    assert len(text.splitlines()) <= 200
    assert len(text.encode()) <= 12_000


def test_overview_names_every_file():
    """Each program file is in docs/overview.md by its path, and each path there exists."""
    named = set(re.findall(r"`([\w./]+(?:\.py|\.sh|/))`", PAGES[REPOSITORY / "docs/overview.md"]))
    files = {name for name in tracked_files() if name.endswith((".py", ".sh")) and not name.startswith("tests/")}
    assert sorted(name for name in files - named if not name.startswith(".")) == []
    assert sorted(name for name in named if not (REPOSITORY / name).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_anchors_exist(page):
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]) + re.findall(r'(?:src|href)="([^"]+)"', PAGES[page]):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), target


def test_options_page_is_fresh(command, tmp_path):
    """The page does not depend on the machine or the user."""
    done = command("scripts/list_options.py", "--check", HOME=str(tmp_path), XDG_CACHE_HOME="")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("ending", "submitted"), [("trap 'exit 138' USR1", True), ("trap 'exit 2' USR1", False)])
def test_slurm_job_submits_itself_after_a_saved_stop(tmp_path, ending, submitted):
    """The script of docs/training.md, with a stand-in for python that ends as train.py does."""
    script = re.search(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", PAGES[REPOSITORY / "docs/training.md"], re.DOTALL)[1]
    (tmp_path / "train.sbatch").write_text(script)
    (tmp_path / "python").write_text(f"#!/bin/bash\n{ending}\ntouch started\nwhile :; do sleep 0.1; done\n")
    (tmp_path / "sbatch").write_text('#!/bin/bash\necho "$@" > submitted\n')
    for name in ("python", "sbatch"):
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    job = subprocess.Popen(["bash", "train.sbatch"], cwd=tmp_path, env={**os.environ, "PATH": path})
    deadline = time.monotonic() + 30
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == (138 if submitted else 2)
    assert (tmp_path / "submitted").exists() == submitted


def sources() -> str:
    """The text of all programs and of the examples."""
    programs = [name for name in tracked_files() if name.endswith((".py", ".sh")) and not name.startswith("tests/")]
    texts = [(REPOSITORY / name).read_text(encoding="utf-8") for name in programs]
    return "".join([*texts, *(content for _, content in EXAMPLES)])


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "options.md"], ids=lambda page: page.name)
def test_flags_on_the_pages_exist(page):
    """Every --flag that a page names is a flag of some program of this repository."""
    elsewhere = {"--nproc_per_node", "--nnodes", "--rdzv_backend", "--rdzv_endpoint", "--help", "--quick"}
    elsewhere |= {"--ipc", "--shm", "--user", "--cpus", "--gres", "--job", "--signal", "--time"}  # Docker, SLURM
    elsewhere |= {"--config", "--eval"}  # fast-reid: --config-file, --eval-only
    named = set(re.findall(r"(?<![\w-])--(?:no-)?[a-zA-Z_]+", PAGES[page])) - elsewhere
    known = sources()
    assert sorted(flag for flag in named if f'"{flag.replace("--no-", "--")}"' not in known) == []


def test_error_messages_in_the_faq_exist():
    """Messages are quoted as the programs print them; "..." stands for what differs."""
    table = PAGES[REPOSITORY / "docs/faq.md"].split("## Error messages")[1]
    elsewhere = {"message", "---", "`No module named 'torch'`"}
    quoted = {row.split(" | ")[0].removeprefix("| ") for row in table.splitlines() if row.startswith("| ")} - elsewhere
    known = re.sub(r'"\s*\n\s*f?"', "", sources())  # a long string in several pieces
    parts = [part.strip() for message in quoted for part in message.strip("`").split("...")]
    assert sorted(part for part in parts if part not in known) == []
