"""Finds a model by name."""

from argparse import Namespace
from importlib import import_module
from pathlib import Path

import torch

from models.base_model import BaseModel


def model_choices() -> list[str]:
    """The choices of --model: NAME for every models/name_model.py with a class NAMEModel."""
    files = (path.name.removesuffix("_model.py") for path in Path(__file__).parent.glob("*_model.py"))
    return sorted(file.upper() for file in files if file != "base")


def find_model(name: str) -> type[BaseModel]:
    return getattr(import_module(f"models.{name.lower()}_model"), f"{name}Model")


def create_model(opt: Namespace, device: torch.device, is_train: bool) -> BaseModel:
    return find_model(opt.model)(opt, device, is_train)
