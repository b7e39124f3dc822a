"""A second, slow DPTN for the tests: functional, driven by the published keys alone, one branch and one loss term at a
time, with torch's own multi-head attention and spectral norm. It shares no code with models/."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import vgg19

State = dict[str, Tensor]


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1)


def _norm(w: State, key: str, x: Tensor) -> Tensor:
    return F.instance_norm(x, weight=w[f"{key}.weight"], bias=w[f"{key}.bias"])


def _conv(w: State, key: str, x: Tensor, **how: int) -> Tensor:
    return F.conv2d(x, w[f"{key}.weight"], w[f"{key}.bias"], **how)


def _up(w: State, key: str, x: Tensor) -> Tensor:
    return F.conv_transpose2d(x, w[f"{key}.weight"], w[f"{key}.bias"], stride=2, padding=1, output_padding=1)


def _encode(w: State, prefix: str, x: Tensor) -> Tensor:
    x = _conv(w, f"{prefix}block0.model.0", x, stride=2, padding=1)
    x = _conv(w, f"{prefix}block0.model.3", _act(_norm(w, f"{prefix}block0.model.1", x)), padding=1)
    for i in range(2):
        key = f"{prefix}encoder{i}.model"
        x = _conv(w, f"{key}.2", _act(_norm(w, f"{key}.0", x)), stride=2, padding=1)
        x = _conv(w, f"{key}.5", _act(_norm(w, f"{key}.3", x)), padding=1)
    return x


def _residual(w: State, x: Tensor) -> Tensor:
    for i in range(3):
        y = _conv(w, f"mblock{i}.conv1", _act(_norm(w, f"mblock{i}.model.0", x)), padding=1)
        y = _conv(w, f"mblock{i}.conv2", _act(_norm(w, f"mblock{i}.model.3", y)), padding=1)
        x = y + _conv(w, f"mblock{i}.bypass", x)
    return x


def _attend(w: State, key: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Tokens first, (N,B,256), as torch's function wants them."""
    out, _ = F.multi_head_attention_forward(
        q, k, v, 256, 2, w[f"{key}.in_proj_weight"], w[f"{key}.in_proj_bias"], None, None, False, 0.0,
        w[f"{key}.out_proj.weight"], w[f"{key}.out_proj.bias"],
    )  # fmt: skip
    return out


def _token_norm(w: State, key: str, x: Tensor) -> Tensor:
    return _norm(w, key, x.permute(1, 2, 0)).permute(2, 0, 1)


def _feed_forward(w: State, key: str, x: Tensor) -> Tensor:
    x = F.linear(x, w[f"{key}.linear1.weight"], w[f"{key}.linear1.bias"])
    return F.linear(_act(x), w[f"{key}.linear2.weight"], w[f"{key}.linear2.bias"])


def _transform(w: State, f_ss: Tensor, f_st: Tensor, f_s: Tensor) -> Tensor:
    memory, tokens, texture = (f.flatten(2).permute(2, 0, 1) for f in (f_ss, f_st, f_s))
    for i in range(2):
        key = f"PTM.encoder.layers.{i}"
        memory = _token_norm(w, f"{key}.norm1", memory + _attend(w, f"{key}.self_attn", memory, memory, memory))
        memory = _token_norm(w, f"{key}.norm2", memory + _feed_forward(w, key, memory))
    for i in range(2):
        key = f"PTM.decoder.layers.{i}"
        tokens = _token_norm(w, f"{key}.norm1", tokens + _attend(w, f"{key}.self_attn", tokens, tokens, tokens))
        crossed = _attend(w, f"{key}.multihead_attn", tokens, memory, texture)
        tokens = _token_norm(w, f"{key}.norm2", tokens + crossed)
        tokens = _token_norm(w, f"{key}.norm3", tokens + _feed_forward(w, key, tokens))
    return _token_norm(w, "PTM.decoder.norm", tokens).permute(1, 2, 0).reshape(f_st.shape)


def _decode(w: State, x: Tensor) -> Tensor:
    for i in range(3):
        y = _conv(w, f"decoder{i}.model.2", _act(_norm(w, f"decoder{i}.model.0", x)), padding=1)
        x = _up(w, f"decoder{i}.model.5", _act(_norm(w, f"decoder{i}.model.3", y))) + _up(
            w, f"decoder{i}.shortcut.0", x
        )
    return _conv(w, "outconv.conv1", F.pad(_act(x), (1, 1, 1, 1), "reflect")).tanh()


def generator(w: State, image: Tensor, source_pose: Tensor, target_pose: Tensor) -> tuple[Tensor, Tensor]:
    """Published state dict, image (B,3,H,W), two heat map stacks (B,18,H,W) -> (fake_target, fake_source)."""
    f_ss = _residual(w, _encode(w, "", torch.cat((image, source_pose, source_pose), 1)))
    f_st = _residual(w, _encode(w, "", torch.cat((image, source_pose, target_pose), 1)))
    f_s = _encode(w, "source_encoder.", image)
    return _decode(w, _transform(w, f_ss, f_st, f_s)), _decode(w, f_ss)


def discriminator(layers: int) -> nn.Module:
    """Modules under the published names, with torch's own spectral norm (its state dict is the published one)."""

    def conv(a: int, b: int, kernel: int, stride: int = 1) -> nn.Module:
        return nn.utils.spectral_norm(nn.Conv2d(a, b, kernel, stride, (kernel - 1) // 2))

    class Block(nn.Module):
        def __init__(self, a: int, b: int, first: bool) -> None:
            super().__init__()
            main = [conv(a, b if first else a, 3), nn.LeakyReLU(0.1), conv(b if first else a, b, 4, 2)]
            self.model = nn.Sequential(*main) if first else nn.Sequential(nn.LeakyReLU(0.1), *main)
            self.shortcut = nn.Sequential(nn.AvgPool2d(2), conv(a, b, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x) + self.shortcut(x)

    net = nn.Sequential()
    widths = [3, 32, 64, 128, 128][: layers + 1]
    for i in range(layers):
        net.add_module("block0" if i == 0 else f"encoder{i - 1}", Block(widths[i], widths[i + 1], i == 0))
    net.add_module("act", nn.LeakyReLU(0.1))
    net.add_module("conv", conv(widths[-1], 1, 1))
    return net


class Trainer:
    """The training step, written out: lsgan, one term at a time."""

    def __init__(
        self, g: State, d: State, vgg: State, layers: int, lambdas: dict[str, float], t_s_ratio: float
    ) -> None:
        self.g = g
        self.g_parameters = list({id(v): v.requires_grad_() for v in g.values()}.values())
        self.d = discriminator(layers).to(next(iter(d.values())).dtype)
        self.d.load_state_dict(d)
        with torch.device("meta"):  # the whole network would take 0.6 GB
            self.features = vgg19(init_weights=False).features[:32]
        self.features.load_state_dict({k.removeprefix("features."): v for k, v in vgg.items()}, assign=True)
        self.features.requires_grad_(False)
        self.lambdas, self.ratio = lambdas, t_s_ratio
        self.adam_g = torch.optim.Adam(self.g_parameters, 2e-4, (0.5, 0.999), foreach=False)
        self.adam_d = torch.optim.Adam(self.d.parameters(), 2e-5, (0.5, 0.999), foreach=False)

    def activations(self, x: Tensor) -> list[Tensor]:
        """The output of each module of VGG19's features."""
        outputs = []
        for module in self.features:
            x = F.relu(x) if isinstance(module, nn.ReLU) else module(x)
            outputs.append(x)
        return outputs

    def content(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        return sum(F.l1_loss(a[i], b[i]) for i in (1, 6, 11, 20, 29))

    def style(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        def gram(f: Tensor) -> Tensor:
            return torch.einsum("nchw,ndhw->ncd", f, f) / (f.shape[1] * f.shape[2] * f.shape[3])

        return sum(F.l1_loss(gram(a[i]), gram(b[i])) for i in (8, 17, 26, 31))

    def step(self, source: Tensor, target: Tensor, source_pose: Tensor, target_pose: Tensor) -> dict[str, float]:
        fake_target, fake_source = generator(self.g, source, source_pose, target_pose)
        on_real, on_fake = self.d(target), self.d(fake_target.detach())
        loss_d = 0.5 * (F.mse_loss(on_real, torch.ones_like(on_real)) + F.mse_loss(on_fake, torch.zeros_like(on_fake)))
        self.adam_d.zero_grad()
        loss_d.backward()
        self.adam_d.step()

        on_fake = self.d(fake_target)
        losses = {"ad_gen_t": self.lambdas["g"] * F.mse_loss(on_fake, torch.ones_like(on_fake))}
        for branch, fake, real in (("t", fake_target, target), ("s", fake_source, source)):
            losses[f"app_gen_{branch}"] = self.lambdas["rec"] * F.l1_loss(fake, real)
            fake_features, real_features = self.activations(fake), self.activations(real)
            losses[f"content_gen_{branch}"] = self.lambdas["content"] * self.content(fake_features, real_features)
            losses[f"style_gen_{branch}"] = self.lambdas["style"] * self.style(fake_features, real_features)
        share = {"t": self.ratio, "s": 1 - self.ratio}
        total = sum(loss * (1 if name == "ad_gen_t" else share[name[-1]]) for name, loss in losses.items())
        self.adam_g.zero_grad()
        gradients = torch.autograd.grad(total, self.g_parameters)
        for parameter, gradient in zip(self.g_parameters, gradients):
            parameter.grad = gradient
        self.adam_g.step()
        return {name: loss.item() for name, loss in losses.items()} | {"dis_img_gen_t": loss_d.item()}
