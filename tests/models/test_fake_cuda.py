"""Forward passes on `cuda` without a GPU: fake tensors have a device, a shape and a dtype, but no content.

They fail on a tensor that was left on the CPU, and on every hidden wait for the device such as `.item()`. Backward
passes need a real device.
"""

from collections.abc import Iterator

import pytest
import torch
from torch._subclasses import FakeTensorMode

from data import keypoints
from models import create_model
from models.base_model import BaseModel
from tests.helpers import TINY, TINY_G, random_batch, test_options, train_options

CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def fake_tensors(monkeypatch) -> Iterator[None]:
    # Modules of fake tensors cannot be moved; they are built on the device instead.
    monkeypatch.setattr(BaseModel, "prepare", lambda self, net: net.train(self.is_train))
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)  # else no autocast
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: (8, 0))
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield
    keypoints._gaussian_table.cache_clear()  # it would give fake tensors to other tests


def model_with_input(*flags: str, is_train: bool) -> BaseModel:
    options = train_options(*TINY, *flags) if is_train else test_options(*TINY_G, *flags)
    with CUDA:
        model = create_model(options, CUDA, is_train)
    model.set_input(random_batch())
    return model


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_inference_stays_on_the_gpu(precision):
    image = model_with_input(f"--precision={precision}", is_train=False).test()
    assert (image.device, image.dtype, image.shape) == (CUDA, torch.float32, (2, 3, 64, 32))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("flag", ["--gan_mode=lsgan", "--gan_mode=hinge", "--gan_mode=vanilla", "--model=DPTNTA"])
def test_training_losses_stay_on_the_gpu(precision, flag):
    model = model_with_input(f"--precision={precision}", flag, is_train=True)
    model.forward()
    losses = model.generator_losses()
    losses["real"] = model.gan_loss.discriminator_real(model.net_D(model.batch.target_image))
    losses["fake"] = model.gan_loss.discriminator_fake(model.net_D(model.fake_target.detach()))
    assert {loss.device for loss in losses.values()} == {CUDA}
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert {loss.shape for loss in losses.values()} == {()}
