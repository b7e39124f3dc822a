"""Imports point one way: scripts -> train, test -> inference -> options -> models, metrics -> data -> util."""

import ast
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

LEVELS = {"util": 0, "data": 1, "models": 2, "metrics": 2, "options": 3, "inference": 4, "train": 5, "test": 5,
          "example": 5, "example_onnx": 5, "hubconf": 5, "scripts": 6, "tests": 7}  # fmt: skip
FILES = [path.relative_to(REPOSITORY) for name in LEVELS for path in sorted(REPOSITORY.glob(f"{name}/**/*.py"))]
FILES += [Path(f"{name}.py") for name in ("train", "test", "example", "example_onnx", "hubconf")]


def imported_modules(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    return plain | {f"{node.module}.{alias.name}" for node in froms for alias in node.names}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_point_one_way(file):
    own = file.parts[0].removesuffix(".py")
    for module in imported_modules(file):
        top = module.split(".")[0]
        if top not in LEVELS or top == own:
            continue
        assert LEVELS[top] < LEVELS[own], f"{file} imports {module}"
        if (own, top) == ("models", "data"):
            assert module.startswith("data.keypoints."), f"{file} imports {module}; models know only keypoints"
