"""Finds a model by name."""

from argparse import Namespace
from pathlib import Path

import torch

from models.base_model import BaseModel
from util.packages import find_class


def model_names() -> list[str]:
    """The choices of --model: NAME for every models/name_model.py with a class NAMEModel."""
    files = (path.name.removesuffix("_model.py") for path in Path(__file__).parent.glob("*_model.py"))
    return sorted(file.upper() for file in files if file != "base")


def find_model(name: str) -> type[BaseModel]:
    """The class of one of `model_names()`. UserError where its file has no class of that name."""
    return find_class(f"models.{name.lower()}_model", f"{name}Model")


def create_model(opt: Namespace, device: torch.device, is_train: bool) -> BaseModel:
    return find_model(opt.model)(opt, device, is_train)
