"""Networks as people write them by hand, one class each, for `further.yaml`: nothing but PyTorch.

Each follows the habits of its kind: tables of learned positions, functional weights, einsum, gates, conditions that
scale and shift, norms by hand, dictionaries and data classes in the place of a tensor, messages along edges of graphs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

# --- images -----------------------------------------------------------------------------------------------------------


class _FilmBlock(nn.Module):
    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.film = nn.Linear(condition, 2 * width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        gamma, beta = self.film(condition).chunk(2, dim=-1)
        out = self.norm(self.conv2(x))
        return x + F.relu((1 + gamma[..., None, None]) * out + beta[..., None, None])


class FilmReasoner(nn.Module):
    """Answers questions on images: a recurrent reader of the question scales and shifts features of the image."""

    def __init__(self, words: int = 50, width: int = 32, blocks: int = 3, answers: int = 7) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, 24, padding_idx=0)
        self.gru = nn.GRU(24, 40, batch_first=True)
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.ModuleList([_FilmBlock(width + 2, 40) for _ in range(blocks)])
        self.classifier = nn.Sequential(nn.Conv2d(width + 2, 64, 1), nn.BatchNorm2d(64), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(64, 64), nn.ReLU(inplace=True), nn.Linear(64, answers))

    def forward(self, image: Tensor, question: Tensor) -> dict[str, Tensor]:
        """Return scores of the answers, and the features that they were read from."""
        _, hidden = self.gru(self.embed(question))
        x = self.stem(image)
        rows = (
            torch.linspace(-1, 1, x.shape[2], device=x.device).view(1, 1, -1, 1).expand(x.shape[0], 1, -1, x.shape[3])
        )
        columns = torch.linspace(-1, 1, x.shape[3], device=x.device).view(1, 1, 1, -1).expand_as(rows)
        x = torch.cat([x, rows, columns], dim=1)
        for block in self.blocks:
            x = block(x, hidden[-1])
        features = self.classifier(x).amax(dim=(2, 3))
        return {"logits": self.head(features), "features": features}


class _Cbam(nn.Module):
    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels, channels // reduction),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels),
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        average = F.avg_pool2d(x, (x.size(2), x.size(3)), stride=(x.size(2), x.size(3)))
        highest = F.max_pool2d(x, (x.size(2), x.size(3)), stride=(x.size(2), x.size(3)))
        scale = torch.sigmoid(self.mlp(average) + self.mlp(highest)).unsqueeze(2).unsqueeze(3).expand_as(x)
        x = x * scale
        pooled = torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)
        return x * torch.sigmoid(self.spatial(pooled))


class _CbamBlock(nn.Module):
    def __init__(self, inplanes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False), nn.BatchNorm2d(planes)
        self.cbam = _Cbam(planes)
        self.shortcut = None
        if stride != 1 or inplanes != planes:
            self.shortcut = nn.Sequential(nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.shortcut is None else self.shortcut(x)
        out = self.cbam(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        out += residual
        return F.relu(out)


class CbamResNet(nn.Module):
    """A residual network whose blocks weigh their channels by two pools, and their pixels by statistics of channels."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        layers, width = [], 16
        for planes, stride in ((16, 1), (16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
            layers.append(_CbamBlock(width, planes, stride))
            width = planes
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of the classes."""
        x = self.layers(F.relu(self.conv(x)))
        x = F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1)
        scores: Tensor = self.fc(x)
        return scores


class AttentionUNet(nn.Module):
    """A U-Net whose skips pass gates, with odd sizes padded to fit."""

    class _Gate(nn.Module):
        def __init__(self, gate: int, skip: int, inner: int) -> None:
            super().__init__()
            self.w_g = nn.Sequential(nn.Conv2d(gate, inner, 1), nn.BatchNorm2d(inner))
            self.w_x = nn.Sequential(nn.Conv2d(skip, inner, 1), nn.BatchNorm2d(inner))
            self.psi = nn.Sequential(nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

        def forward(self, g: Tensor, x: Tensor) -> Tensor:
            return x * self.psi(F.relu(self.w_g(g) + self.w_x(x), inplace=True))

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96), classes: int = 3) -> None:
        super().__init__()
        self.encoders, self.ups, self.gates, self.decoders = (nn.ModuleList() for _ in range(4))
        before = 3
        for width in widths:
            self.encoders.append(self._double(before, width))
            before = width
        for deep, shallow in zip(widths[::-1], widths[-2::-1], strict=False):
            self.ups.append(nn.ConvTranspose2d(deep, shallow, 2, stride=2))
            self.gates.append(self._Gate(shallow, shallow, max(shallow // 2, 1)))
            self.decoders.append(self._double(2 * shallow, shallow))
        self.out = nn.Conv2d(widths[0], classes, 1)

    @staticmethod
    def _double(before: int, after: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for width in (before, after):
            layers += [nn.Conv2d(width, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of every pixel."""
        skips = []
        for i, encoder in enumerate(self.encoders):
            x = encoder(x)
            if i < len(self.encoders) - 1:
                skips.append(x)
                x = F.max_pool2d(x, 2)
        for up, gate, decoder in zip(self.ups, self.gates, self.decoders, strict=True):
            x, skip = up(x), skips.pop()
            dy, dx = skip.size(2) - x.size(2), skip.size(3) - x.size(3)
            x = F.pad(x, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
            x = decoder(torch.cat([gate(g=x, x=skip), x], dim=1))
        scores: Tensor = self.out(x)
        return scores


class _LayerNormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps):  # type: ignore[no-untyped-def]
        ctx.eps = eps
        _, C, _, _ = x.size()  # noqa: N806
        mu = x.mean(1, keepdim=True)
        var = (x - mu).pow(2).mean(1, keepdim=True)
        y = (x - mu) / (var + eps).sqrt()
        ctx.save_for_backward(y, var, weight)
        return weight.view(1, C, 1, 1) * y + bias.view(1, C, 1, 1)

    @staticmethod
    def backward(ctx, grad_output):  # type: ignore[no-untyped-def]
        y, var, weight = ctx.saved_tensors
        g = grad_output * weight.view(1, -1, 1, 1)
        mean_g, mean_gy = g.mean(dim=1, keepdim=True), (g * y).mean(dim=1, keepdim=True)
        gx = 1.0 / torch.sqrt(var + ctx.eps) * (g - y * mean_gy - mean_g)
        return gx, (grad_output * y).sum(dim=(0, 2, 3)), grad_output.sum(dim=(0, 2, 3)), None


class _LayerNorm2d(nn.Module):
    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _LayerNormFunction.apply(x, self.weight, self.bias, self.eps)
        return out


class _NafBlock(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.conv3, self.conv4, self.conv5 = nn.Conv2d(c, c, 1), nn.Conv2d(c, 2 * c, 1), nn.Conv2d(c, c, 1)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1))
        self.norm1, self.norm2 = _LayerNorm2d(c), _LayerNorm2d(c)
        self.beta = nn.Parameter(0.1 * torch.ones(1, c, 1, 1))
        self.gamma = nn.Parameter(0.1 * torch.ones(1, c, 1, 1))

    @staticmethod
    def _gate(x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        return a * b

    def forward(self, inp: Tensor) -> Tensor:
        x = self._gate(self.conv2(self.conv1(self.norm1(inp))))
        y = inp + self.conv3(x * self.sca(x)) * self.beta
        return y + self.conv5(self._gate(self.conv4(self.norm2(y)))) * self.gamma


class NafNet(nn.Module):
    """Restores images without activations, by products of halves; its norm has its own derivative."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.intro, self.ending = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.enc1 = nn.Sequential(_NafBlock(width), _NafBlock(width))
        self.down1, self.enc2 = (
            nn.Conv2d(width, 2 * width, 2, 2),
            nn.Sequential(_NafBlock(2 * width), _NafBlock(2 * width)),
        )
        self.up1 = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 1, bias=False), nn.PixelShuffle(2))
        self.dec1 = nn.Sequential(_NafBlock(width))

    def forward(self, inp: Tensor) -> Tensor:
        """Return the restored image."""
        _, _, h, w = inp.shape
        padded = F.pad(inp, (0, (2 - w % 2) % 2, 0, (2 - h % 2) % 2))
        x = self.enc1(self.intro(padded))
        x = self.dec1(self.up1(self.enc2(self.down1(x))) + x)
        return (self.ending(x) + padded)[:, :, :h, :w]


class _ChannelAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.temperature = heads, nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, dim * 3, 1, bias=False)
        self.dwconv = nn.Conv2d(dim * 3, dim * 3, 3, padding=1, groups=dim * 3, bias=False)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.dwconv(self.qkv(x)).chunk(3, dim=1)
        q = F.normalize(q.reshape(b, self.heads, c // self.heads, h * w), dim=-1)
        k = F.normalize(k.reshape(b, self.heads, c // self.heads, h * w), dim=-1)
        v = v.reshape(b, self.heads, c // self.heads, h * w)
        attn = ((q @ k.transpose(-2, -1)) * self.temperature).softmax(dim=-1)
        return self.project_out((attn @ v).reshape(b, c, h, w))  # type: ignore[no-any-return]


class _GatedForward(nn.Module):
    def __init__(self, dim: int, factor: float) -> None:
        super().__init__()
        hidden = int(dim * factor)
        self.project_in = nn.Conv2d(dim, hidden * 2, 1, bias=False)
        self.dwconv = nn.Conv2d(hidden * 2, hidden * 2, 3, padding=1, groups=hidden * 2, bias=False)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        out: Tensor = self.project_out(F.gelu(x1) * x2)
        return out


class _BiasFreeNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        tokens = x.flatten(2).transpose(1, 2)
        sigma = tokens.var(-1, keepdim=True, unbiased=False)
        tokens = tokens / torch.sqrt(sigma + 1e-5) * self.weight
        return tokens.transpose(1, 2).reshape(x.shape[0], -1, h, w)


class Restormer(nn.Module):
    """Restores images by attention between channels, whose maps are brought to the length of one."""

    class _Block(nn.Module):
        def __init__(self, dim: int, heads: int) -> None:
            super().__init__()
            self.norm1, self.attn = _BiasFreeNorm(dim), _ChannelAttention(dim, heads)
            self.norm2, self.ffn = _BiasFreeNorm(dim), _GatedForward(dim, 2.0)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.attn(self.norm1(x))
            return x + self.ffn(self.norm2(x))

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, dim, 3, padding=1, bias=False)
        self.encoder = nn.Sequential(*[self._Block(dim, 2) for _ in range(2)])
        self.down = nn.Sequential(nn.Conv2d(dim, dim // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))
        self.latent = nn.Sequential(*[self._Block(2 * dim, 4) for _ in range(3)])
        self.up = nn.Sequential(nn.Conv2d(2 * dim, 4 * dim, 3, padding=1, bias=False), nn.PixelShuffle(2))
        self.reduce = nn.Conv2d(2 * dim, dim, 1, bias=False)
        self.decoder = nn.Sequential(*[self._Block(dim, 2) for _ in range(2)])
        self.output = nn.Conv2d(dim, 3, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the restored image."""
        first = self.encoder(self.embed(image))
        deep = self.up(self.latent(self.down(first)))
        return self.output(self.decoder(self.reduce(torch.cat([deep, first], 1)))) + image  # type: ignore[no-any-return]


class DynamicConvNet(nn.Module):
    """Convolutions whose kernel is a mixture, another one for every image, run as one grouped convolution."""

    class _Dynamic(nn.Module):
        def __init__(self, before: int, after: int, kernel: int, experts: int = 4, stride: int = 1) -> None:
            super().__init__()
            self.stride, self.padding = stride, kernel // 2
            self.router = nn.Sequential(nn.Linear(before, before // 4), nn.ReLU(), nn.Linear(before // 4, experts))
            self.weight = nn.Parameter(torch.randn(experts, after, before, kernel, kernel) * 0.05)
            self.bias = nn.Parameter(torch.zeros(experts, after))

        def forward(self, x: Tensor) -> Tensor:
            b, c, h, w = x.shape
            experts, after = self.bias.shape
            share = F.softmax(self.router(x.mean(dim=(2, 3))) / 3.0, dim=-1)
            weight = torch.mm(share, self.weight.view(experts, -1)).view(b * after, c, *self.weight.shape[3:])
            bias = torch.mm(share, self.bias).view(-1)
            out = F.conv2d(x.reshape(1, b * c, h, w), weight, bias, self.stride, self.padding, groups=b)
            return out.view(b, after, out.size(-2), out.size(-1))

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.conv1, self.bn1 = self._Dynamic(24, 48, 3, stride=2), nn.BatchNorm2d(48)
        self.conv2, self.bn2 = self._Dynamic(48, 48, 3), nn.BatchNorm2d(48)
        self.last = nn.Sequential(nn.Conv2d(48, 128, 1), nn.Hardswish())
        self.fc = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of the classes."""
        x = F.relu(self.bn1(self.conv1(self.stem(x))))
        x = x + F.relu(self.bn2(self.conv2(x)))
        scores: Tensor = self.fc(self.last(x).mean([-2, -1]))
        return scores


class YoloGrid(nn.Module):
    """A one-stage detector that decodes boxes of anchors on two grids, by a backbone that is a table of settings."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.classes, self.strides = classes, (8, 16)
        self.register_buffer("anchors", torch.tensor([[[10.0, 13], [16, 30]], [[30.0, 61], [62, 45]]]))
        table: list[tuple[str, int]] = [
            ("conv", 16),
            ("down", 32),
            ("res", 16),
            ("down", 64),
            ("res", 32),
            ("down", 64),
        ]
        self.backbone, before = nn.ModuleList(), 3
        for kind, width in table:
            if kind == "res":
                self.backbone.append(nn.ModuleList([self._conv(before, width, 1), self._conv(width, before, 3)]))
            else:
                self.backbone.append(self._conv(before, width, 3, 2 if kind == "down" else 1))
                before = width
        self.down, self.lateral = self._conv(64, 128, 3, 2), self._conv(128, 32, 1)
        self.fuse = self._conv(96, 64, 3)
        self.head8 = nn.Conv2d(64, 2 * (5 + classes), 1)
        self.head16 = nn.Conv2d(128, 2 * (5 + classes), 1)

    @staticmethod
    def _conv(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
        conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(after), nn.LeakyReLU(0.1))

    def _decode(self, raw: Tensor, level: int) -> Tensor:
        b, _, h, w = raw.shape
        raw = raw.view(b, 2, 5 + self.classes, h, w).permute(0, 1, 3, 4, 2).contiguous()
        y, x = torch.meshgrid(torch.arange(h, device=raw.device), torch.arange(w, device=raw.device), indexing="ij")
        grid = torch.stack((x, y), 2).view(1, 1, h, w, 2).float()
        xy = (raw[..., 0:2].sigmoid() + grid) * self.strides[level]
        wh = torch.exp(raw[..., 2:4]) * self.anchors[level].view(1, 2, 1, 1, 2)
        return torch.cat((xy, wh, raw[..., 4:].sigmoid()), -1).view(b, -1, 5 + self.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return boxes with the scores of their classes."""
        for layer in self.backbone:
            x = x + layer[1](layer[0](x)) if isinstance(layer, nn.ModuleList) else layer(x)
        deep = self.down(x)
        up = F.interpolate(self.lateral(deep), scale_factor=2, mode="nearest")
        fine = self.fuse(torch.cat([x, up], 1))
        return torch.cat([self._decode(self.head8(fine), 0), self._decode(self.head16(deep), 1)], dim=1)


class DetrDemo(nn.Module):
    """The detector of learned queries in its shortest form: torch's own transformer, and tables of rows and columns."""

    def __init__(self, classes: int = 5, hidden: int = 32, heads: int = 4) -> None:
        super().__init__()
        widths = (3, 16, 24, 48)
        self.backbone = nn.Sequential(
            *[nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in pairwise(widths)]
        )
        self.conv = nn.Conv2d(48, hidden, 1)
        self.transformer = nn.Transformer(hidden, heads, 2, 2, dim_feedforward=64)
        self.linear_class, self.linear_bbox = nn.Linear(hidden, classes + 1), nn.Linear(hidden, 4)
        self.query_pos = nn.Parameter(torch.rand(10, hidden))
        self.row_embed = nn.Parameter(torch.rand(50, hidden // 2))
        self.col_embed = nn.Parameter(torch.rand(50, hidden // 2))

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return scores and boxes of every query."""
        h = self.conv(self.backbone(inputs))
        H, W = h.shape[-2:]  # noqa: N806
        pos = torch.cat(
            [self.col_embed[:W].unsqueeze(0).repeat(H, 1, 1), self.row_embed[:H].unsqueeze(1).repeat(1, W, 1)], dim=-1
        )
        pos = pos.flatten(0, 1).unsqueeze(1)
        queries = self.query_pos.unsqueeze(1).repeat(1, inputs.shape[0], 1)
        h = self.transformer(pos + 0.1 * h.flatten(2).permute(2, 0, 1), queries).transpose(0, 1)
        return {"pred_logits": self.linear_class(h), "pred_boxes": self.linear_bbox(h).sigmoid()}


class ChangeDetector(nn.Module):
    """Two images through one encoder; the decoder reads the absolute differences of their features."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        for i, (a, b) in enumerate(zip((3, *widths), widths, strict=False), 1):
            setattr(self, f"conv{i}1", nn.Conv2d(a, b, 3, padding=1))
            setattr(self, f"bn{i}1", nn.BatchNorm2d(b))
            setattr(self, f"conv{i}2", nn.Conv2d(b, b, 3, padding=1))
            setattr(self, f"bn{i}2", nn.BatchNorm2d(b))
        for i, (a, b) in enumerate(zip(widths[:0:-1], widths[-2::-1], strict=True), 1):
            setattr(self, f"upconv{i}", nn.ConvTranspose2d(a, b, 3, padding=1, stride=2, output_padding=1))
            setattr(self, f"merge{i}", nn.Conv2d(2 * b, b, 3, padding=1))
        self.depth, self.last, self.drop = len(widths), nn.Conv2d(widths[0], 2, 1), nn.Dropout2d(0.2)

    def _encode(self, x: Tensor) -> list[Tensor]:
        features = []
        for i in range(1, self.depth + 1):
            x = F.relu(getattr(self, f"bn{i}1")(getattr(self, f"conv{i}1")(x)))
            x = self.drop(F.relu(getattr(self, f"bn{i}2")(getattr(self, f"conv{i}2")(x))))
            features.append(x)
            x = F.max_pool2d(x, kernel_size=2, stride=2)
        return features

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Return log probabilities of change at every pixel."""
        differences = [torch.abs(a - b) for a, b in zip(self._encode(x1), self._encode(x2), strict=True)]
        x = differences[-1]
        for i in range(1, self.depth):
            x = getattr(self, f"upconv{i}")(x)
            x = F.relu(getattr(self, f"merge{i}")(torch.cat((x, differences[-1 - i]), 1)))
        return F.log_softmax(self.last(x), dim=1)


class AdaInTransfer(nn.Module):
    """Transfers style: features of the content get means and deviations of the style's."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(3, width, 3), nn.ReLU(), nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.ReflectionPad2d(1), nn.Conv2d(width, 2 * width, 3), nn.ReLU(),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(2 * width, width, 3), nn.ReLU(), nn.Upsample(scale_factor=2),
            nn.ReflectionPad2d(1), nn.Conv2d(width, 3, 3),
        )  # fmt: skip

    @staticmethod
    def _statistics(feat: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
        N, C = feat.size()[:2]  # noqa: N806
        std = (feat.view(N, C, -1).var(dim=2) + eps).sqrt().view(N, C, 1, 1)
        return feat.view(N, C, -1).mean(dim=2).view(N, C, 1, 1), std

    def forward(self, content: Tensor, style: Tensor, alpha: float = 0.8) -> Tensor:
        """Return the content in the style."""
        c, s = self.encoder(content), self.encoder(style)
        (mean_c, std_c), (mean_s, std_s) = self._statistics(c), self._statistics(s)
        normed = (c - mean_c.expand(c.size())) / std_c.expand(c.size())
        t = normed * std_s.expand(c.size()) + mean_s.expand(c.size())
        image: Tensor = self.decoder(alpha * t + (1 - alpha) * c)
        return image


class SelfAttentionGan(nn.Module):
    """A discriminator with spectral norms and attention between pixels, whose strength is learned from zero."""

    class _Attention(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.theta, self.phi = (spectral_norm(nn.Conv2d(width, width // 8, 1, bias=False)) for _ in range(2))
            self.g = spectral_norm(nn.Conv2d(width, width // 2, 1, bias=False))
            self.o = spectral_norm(nn.Conv2d(width // 2, width, 1, bias=False))
            self.gamma = nn.Parameter(torch.tensor(0.3))

        def forward(self, x: Tensor) -> Tensor:
            b, c, h, w = x.shape
            theta = self.theta(x).view(b, c // 8, h * w)
            phi = F.max_pool2d(self.phi(x), [2, 2]).view(b, c // 8, h * w // 4)
            g = F.max_pool2d(self.g(x), [2, 2]).view(b, c // 2, h * w // 4)
            beta = F.softmax(torch.bmm(theta.transpose(1, 2), phi), -1)
            return self.gamma * self.o(torch.bmm(g, beta.transpose(1, 2)).view(b, c // 2, h, w)) + x

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.conv1 = spectral_norm(nn.Conv2d(3, width, 4, 2, 1))
        self.attention = self._Attention(width)
        self.conv2 = spectral_norm(nn.Conv2d(width, 2 * width, 4, 2, 1))
        self.conv3 = spectral_norm(nn.Conv2d(2 * width, 4 * width, 4, 2, 1))
        self.linear = spectral_norm(nn.Linear(4 * width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return one score of every image."""
        x = self.attention(F.leaky_relu(self.conv1(x), 0.1))
        x = F.leaky_relu(self.conv3(F.leaky_relu(self.conv2(x), 0.1)), 0.1)
        return self.linear(torch.sum(x, dim=[2, 3])).squeeze(1)  # type: ignore[no-any-return]


class SlowFast(nn.Module):
    """Videos by two pathways, a wide one of few frames and a narrow one of many, that meet after every stage."""

    def __init__(self, classes: int = 6, width: int = 16) -> None:
        super().__init__()
        fast = width // 4
        self.alpha = 4
        self.slow_stem = nn.Conv3d(3, width, (1, 5, 5), (1, 2, 2), (0, 2, 2), bias=False)
        self.fast_stem = nn.Conv3d(3, fast, (5, 5, 5), (1, 2, 2), (2, 2, 2), bias=False)
        self.slow_bn, self.fast_bn = nn.BatchNorm3d(width), nn.BatchNorm3d(fast)
        self.laterals = nn.ModuleList(
            [nn.Conv3d(f, 2 * f, (5, 1, 1), (self.alpha, 1, 1), (2, 0, 0), bias=False) for f in (fast, 2 * fast)]
        )
        self.slow = nn.ModuleList(
            [self._res(width + 2 * fast, 2 * width, 1), self._res(2 * width + 4 * fast, 4 * width, 3)]
        )
        self.fast = nn.ModuleList([self._res(fast, 2 * fast, 3), self._res(2 * fast, 4 * fast, 3)])
        self.fc = nn.Linear(4 * width + 4 * fast, classes)

    @staticmethod
    def _res(before: int, after: int, frames: int) -> nn.ModuleDict:
        return nn.ModuleDict(
            {
                "a": nn.Conv3d(before, after, (frames, 1, 1), padding=(frames // 2, 0, 0), bias=False),
                "a_bn": nn.BatchNorm3d(after),
                "b": nn.Conv3d(after, after, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False),
                "b_bn": nn.BatchNorm3d(after),
                "skip": nn.Conv3d(before, after, 1, (1, 2, 2), bias=False),
            }
        )

    @staticmethod
    def _run(block: nn.ModuleDict, x: Tensor) -> Tensor:
        inner = F.relu(block["a_bn"](block["a"](x)))
        return F.relu(block["skip"](x) + block["b_bn"](block["b"](inner)))

    def forward(self, clip: Tensor) -> Tensor:
        """Return scores of the actions in clips of shape (samples, colours, frames, height, width)."""
        slow = F.relu(self.slow_bn(self.slow_stem(clip[:, :, :: self.alpha])))
        fast = F.relu(self.fast_bn(self.fast_stem(clip)))
        for lateral, slow_block, fast_block in zip(self.laterals, self.slow, self.fast, strict=True):
            slow = self._run(slow_block, torch.cat([slow, lateral(fast)], dim=1))
            fast = self._run(fast_block, fast)
        pooled = [F.adaptive_avg_pool3d(path, 1).flatten(1) for path in (slow, fast)]
        scores: Tensor = self.fc(F.dropout(torch.cat(pooled, dim=1), 0.5, self.training))
        return scores


# --- sequences and text -----------------------------------------------------------------------------------------------


class GatedMlp(nn.Module):
    """Text without attention: half of the features gate the other half, mixed over places by one matrix."""

    class _Block(nn.Module):
        def __init__(self, dim: int, hidden: int, places: int) -> None:
            super().__init__()
            self.norm, self.channel_in = nn.LayerNorm(dim), nn.Linear(dim, hidden * 2)
            self.gate_norm, self.spatial = nn.LayerNorm(hidden), nn.Conv1d(places, places, 1)
            self.channel_out = nn.Linear(hidden, dim)
            nn.init.constant_(self.spatial.bias, 1.0)  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Tensor:
            u, v = F.gelu(self.channel_in(self.norm(x))).chunk(2, dim=-1)
            return x + self.channel_out(u * self.spatial(self.gate_norm(v)))

    def __init__(self, words: int = 60, dim: int = 32, hidden: int = 64, places: int = 12, depth: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, dim)
        self.model = nn.Sequential(*[self._Block(dim, hidden, places) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores of every place's word, by the table of words itself."""
        x = self.norm(self.model(self.embed(tokens)))
        return torch.einsum("bnd,wd->bnw", x, self.embed.weight)


class SasRec(nn.Module):
    """Recommends the next item, as its best known repository does: torch's attention, convolutions of width one."""

    class _Forward(nn.Module):
        def __init__(self, units: int, dropout: float) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv1d(units, units, 1), nn.Conv1d(units, units, 1)
            self.dropout1, self.dropout2 = nn.Dropout(dropout), nn.Dropout(dropout)

        def forward(self, inputs: Tensor) -> Tensor:
            outputs = self.dropout2(self.conv2(F.relu(self.dropout1(self.conv1(inputs.transpose(-1, -2))))))
            return outputs.transpose(-1, -2) + inputs  # type: ignore[no-any-return]

    def __init__(self, items: int = 40, units: int = 32, places: int = 20, blocks: int = 2, heads: int = 2) -> None:
        super().__init__()
        self.item_emb = nn.Embedding(items + 1, units, padding_idx=0)
        self.pos_emb = nn.Embedding(places + 1, units, padding_idx=0)
        self.attention_layernorms, self.attention_layers, self.forward_layernorms, self.forward_layers = (
            nn.ModuleList() for _ in range(4)
        )
        for _ in range(blocks):
            self.attention_layernorms.append(nn.LayerNorm(units, eps=1e-8))
            self.attention_layers.append(nn.MultiheadAttention(units, heads, 0.1))
            self.forward_layernorms.append(nn.LayerNorm(units, eps=1e-8))
            self.forward_layers.append(self._Forward(units, 0.1))
        self.last_layernorm = nn.LayerNorm(units, eps=1e-8)

    def forward(self, history: Tensor, candidates: Tensor) -> Tensor:
        """Return scores of the candidates after every place of the history."""
        seqs = self.item_emb(history) * self.item_emb.embedding_dim**0.5
        places = torch.arange(1, history.shape[1] + 1, device=history.device).unsqueeze(0) * (history != 0)
        seqs = seqs + self.pos_emb(places)
        length = seqs.shape[1]
        mask = ~torch.tril(torch.ones((length, length), dtype=torch.bool, device=seqs.device))
        for i in range(len(self.attention_layers)):
            seqs = torch.transpose(seqs, 0, 1)
            Q = self.attention_layernorms[i](seqs)  # noqa: N806
            outputs, _ = self.attention_layers[i](Q, seqs, seqs, attn_mask=mask)
            seqs = torch.transpose(Q + outputs, 0, 1)
            seqs = self.forward_layers[i](self.forward_layernorms[i](seqs))
        features = self.last_layernorm(seqs)
        return (features.unsqueeze(2) * self.item_emb(candidates).unsqueeze(1)).sum(dim=-1)  # type: ignore[no-any-return]


class SelectiveScan(nn.Module):
    """A state-space language model as the minimal rewrites have it: a loop over places, and norms by hand."""

    class _Norm(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(dim))

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight

    class _Mixer(nn.Module):
        def __init__(self, dim: int, state: int, rank: int) -> None:
            super().__init__()
            inner = 2 * dim
            self.state, self.rank, self.inner = state, rank, inner
            self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
            self.conv1d = nn.Conv1d(inner, inner, 4, groups=inner, padding=3)
            self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
            self.dt_proj = nn.Linear(rank, inner)
            self.A_log = nn.Parameter(torch.log(torch.arange(1, state + 1).float().repeat(inner, 1)))
            self.D = nn.Parameter(torch.ones(inner))
            self.out_proj = nn.Linear(inner, dim, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            length = x.shape[1]
            x, res = self.in_proj(x).split(split_size=[self.inner, self.inner], dim=-1)
            x = F.silu(self.conv1d(x.transpose(1, 2))[:, :, :length].transpose(1, 2))
            y = self._scan(x) * F.silu(res)
            out: Tensor = self.out_proj(y)
            return out

        def _scan(self, u: Tensor) -> Tensor:
            A = -torch.exp(self.A_log.float())  # noqa: N806
            delta, B, C = self.x_proj(u).split([self.rank, self.state, self.state], dim=-1)  # noqa: N806
            delta = F.softplus(self.dt_proj(delta))
            decay = torch.exp(torch.einsum("bld,dn->bldn", delta, A))
            step = torch.einsum("bld,bln,bld->bldn", delta, B, u)
            x = torch.zeros((u.shape[0], self.inner, self.state), device=u.device, dtype=u.dtype)
            ys = []
            for i in range(u.shape[1]):
                x = decay[:, i] * x + step[:, i]
                ys.append(torch.einsum("bdn,bn->bd", x, C[:, i, :]))
            return torch.stack(ys, dim=1) + u * self.D

    def __init__(self, words: int = 60, dim: int = 24, depth: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, dim)
        self.mixers = nn.ModuleList([self._Mixer(dim, 8, 4) for _ in range(depth)])
        self.norms = nn.ModuleList([self._Norm(dim) for _ in range(depth)])
        self.norm_f, self.lm_head = self._Norm(dim), nn.Linear(dim, words, bias=False)
        self.lm_head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Return scores of the next word."""
        x = self.embedding(ids)
        for norm, mixer in zip(self.norms, self.mixers, strict=True):
            x = mixer(norm(x)) + x
        scores: Tensor = self.lm_head(self.norm_f(x))
        return scores


@dataclass
class TagOutput:
    """What a tagger returns: scores of tags, a summary of the sentence, and how it was read."""

    emissions: Tensor
    summary: Tensor
    weights: Tensor | None = None


class CharWordTagger(nn.Module):
    """Tags words by an LSTM over words and convolutions over their letters; attention sums the sentence up."""

    def __init__(self, words: int = 80, letters: int = 30, hidden: int = 24, tags: int = 6) -> None:
        super().__init__()
        self.word_embed, self.char_embed = nn.Embedding(words, 32), nn.Embedding(letters, 16)
        self.char_convs = nn.ModuleList([nn.Conv1d(16, 12, k, padding=k // 2) for k in (3, 5)])
        self.lstm = nn.LSTM(32 + 24, hidden, num_layers=2, bidirectional=True, batch_first=True, dropout=0.2)
        self.attention = nn.Linear(2 * hidden, 2 * hidden, bias=False)
        self.context = nn.Parameter(torch.randn(2 * hidden) * 0.1)
        self.fc, self.sentence = nn.Linear(2 * hidden, tags), nn.Linear(2 * hidden, 3)

    def forward(self, words: Tensor, chars: Tensor) -> TagOutput:
        """Return the scores, of words of shape (samples, words) and letters of shape (samples, words, letters)."""
        b, n, c = chars.shape
        letters = self.char_embed(chars).view(b * n, c, -1).permute(0, 2, 1)
        pooled = torch.cat([torch.tanh(conv(letters)).max(dim=2).values for conv in self.char_convs], dim=1)
        x = torch.cat((self.word_embed(words), pooled.reshape(b, n, -1)), dim=2)
        hidden, (last, _) = self.lstm(x)
        weights = torch.softmax(torch.tanh(self.attention(hidden)) @ self.context, dim=1)
        summary = (hidden * weights.unsqueeze(-1)).sum(1) + torch.cat([last[-2], last[-1]], dim=-1)
        return TagOutput(self.fc(hidden), self.sentence(summary), weights)


class ImageCaptioner(nn.Module):
    """Captions by an LSTM cell that attends to places of the image, and gates what it saw; words are fed as given."""

    def __init__(self, words: int = 40, encoder: int = 32, decoder: int = 48, embed: int = 24) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, encoder, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d((4, 4)),
        )
        self.encoder_att, self.decoder_att = nn.Linear(encoder, 20), nn.Linear(decoder, 20)
        self.full_att = nn.Linear(20, 1)
        self.embedding, self.cell = nn.Embedding(words, embed), nn.LSTMCell(embed + encoder, decoder, bias=True)
        self.init_h, self.init_c = nn.Linear(encoder, decoder), nn.Linear(encoder, decoder)
        self.f_beta, self.fc = nn.Linear(decoder, encoder), nn.Linear(decoder, words)

    def forward(self, image: Tensor, caption: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores of every next word, and where the image was looked at."""
        places = self.encoder(image).permute(0, 2, 3, 1)
        places = places.view(places.size(0), -1, places.size(-1))
        h, c = self.init_h(places.mean(dim=1)), self.init_c(places.mean(dim=1))
        embeddings = self.embedding(caption)
        predictions, alphas = [], []
        for t in range(caption.size(1)):
            att = self.full_att(F.relu(self.encoder_att(places) + self.decoder_att(h).unsqueeze(1))).squeeze(2)
            alpha = F.softmax(att, dim=1)
            seen = (places * alpha.unsqueeze(2)).sum(dim=1) * torch.sigmoid(self.f_beta(h))
            h, c = self.cell(torch.cat([embeddings[:, t, :], seen], dim=1), (h, c))
            predictions.append(self.fc(F.dropout(h, 0.5, self.training)))
            alphas.append(alpha)
        return torch.stack(predictions, dim=1), torch.stack(alphas, dim=1)


class FourierMixer(nn.Module):
    """A transformer whose attention is a Fourier transform over places and features, followed by layers as usual."""

    def __init__(self, words: int = 60, dim: int = 32, depth: int = 3, classes: int = 4) -> None:
        super().__init__()
        self.embed, self.pos = nn.Embedding(words, dim), nn.Parameter(torch.zeros(1, 64, dim))
        self.norms1, self.norms2 = (nn.ModuleList([nn.LayerNorm(dim) for _ in range(depth)]) for _ in range(2))
        self.ffs = nn.ModuleList(
            [nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)) for _ in range(depth)]
        )
        self.head = nn.Linear(dim, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores of the text's classes."""
        x = self.embed(tokens) + self.pos[:, : tokens.size(1)]
        for norm1, norm2, ff in zip(self.norms1, self.norms2, self.ffs, strict=True):
            x = norm1(x + torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real)
            x = norm2(x + ff(x))
        scores: Tensor = self.head(x[:, 0])
        return scores


class LinearAttentionDecoder(nn.Module):
    """Causal attention by running sums of keys and values, in einsum, with rotated positions."""

    class _Layer(nn.Module):
        def __init__(self, dim: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.ln1, self.ln2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.wq, self.wk, self.wv = (nn.Parameter(torch.randn(heads, dim, dim // heads) * 0.1) for _ in range(3))
            self.wo = nn.Parameter(torch.randn(heads, dim // heads, dim) * 0.1)
            self.w1, self.w2, self.w3 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim), nn.Linear(dim, 2 * dim)

        def forward(self, x: Tensor) -> Tensor:
            y = self.ln1(x)
            q, k, v = (torch.einsum("bnd,hde->bhne", y, w) for w in (self.wq, self.wk, self.wv))
            q, k = F.elu(q) + 1, F.elu(k) + 1
            kv = torch.einsum("bhnd,bhne->bhnde", k, v).cumsum(dim=2)
            norm = 1.0 / (torch.einsum("bhnd,bhnd->bhn", q, k.cumsum(dim=2)) + 1e-6)
            out = torch.einsum("bhnd,bhnde,bhn->bhne", q, kv, norm)
            x = x + torch.einsum("bhne,hed->bnd", out, self.wo)
            y = self.ln2(x)
            return x + self.w2(F.silu(self.w1(y)) * self.w3(y))

    def __init__(self, words: int = 50, dim: int = 32, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.tok = nn.Embedding(words, dim)
        self.layers = nn.ModuleList(self._Layer(dim, heads) for _ in range(depth))
        self.out = nn.Linear(dim, words, bias=False)
        inverse = 1.0 / (10000 ** (torch.arange(0, dim, 2).float() / dim))
        angles = torch.outer(torch.arange(64).float(), inverse)
        self.register_buffer("table", torch.cat([angles.sin(), angles.cos()], dim=-1), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores of the next word."""
        x = self.tok(tokens) * math.sqrt(self.tok.embedding_dim) + self.table[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x)
        scores: Tensor = self.out(x)
        return scores


class DecisionTransformer(nn.Module):
    """Returns, states and actions, interleaved into one sequence, through torch's encoder layers; predicts actions."""

    def __init__(self, state: int = 11, action: int = 3, hidden: int = 32, longest: int = 100) -> None:
        super().__init__()
        self.hidden = hidden
        self.embed_timestep = nn.Embedding(longest, hidden)
        self.embed_return, self.embed_state = nn.Linear(1, hidden), nn.Linear(state, hidden)
        self.embed_action, self.embed_ln = nn.Linear(action, hidden), nn.LayerNorm(hidden)
        layer = nn.TransformerEncoderLayer(hidden, 4, 4 * hidden, 0.1, "gelu", batch_first=True, norm_first=True)
        self.transformer = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.predict_state = nn.Linear(hidden, state)
        self.predict_action = nn.Sequential(nn.Linear(hidden, action), nn.Tanh())

    def forward(self, states: Tensor, actions: Tensor, returns: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next states and the actions."""
        batch, length = states.shape[0], states.shape[1]
        time = self.embed_timestep(timesteps)
        parts = [self.embed_return(returns) + time, self.embed_state(states) + time, self.embed_action(actions) + time]
        stacked = torch.stack(parts, dim=1).permute(0, 2, 1, 3).reshape(batch, 3 * length, self.hidden)
        mask = torch.triu(torch.full((3 * length, 3 * length), float("-inf"), device=states.device), diagonal=1)
        x = self.transformer(self.embed_ln(stacked), mask=mask)
        x = x.reshape(batch, length, 3, self.hidden).permute(0, 2, 1, 3)
        return self.predict_state(x[:, 2]), self.predict_action(x[:, 1])


class QuartzNet(nn.Module):
    """Speech by separable convolutions over time, blocks of which repeat inside a residual."""

    class _Block(nn.Module):
        def __init__(self, before: int, after: int, kernel: int, repeat: int) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            for i in range(repeat):
                width = before if i == 0 else after
                layers += [
                    nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width, bias=False),
                    nn.Conv1d(width, after, 1, bias=False),
                    nn.BatchNorm1d(after, eps=1e-3),
                ]
                if i < repeat - 1:
                    layers += [nn.ReLU(), nn.Dropout(0.1)]
            self.mconv = nn.ModuleList(layers)
            self.res = nn.Sequential(nn.Conv1d(before, after, 1, bias=False), nn.BatchNorm1d(after, eps=1e-3))
            self.mout = nn.Sequential(nn.ReLU(), nn.Dropout(0.1))

        def forward(self, x: Tensor) -> Tensor:
            out = x
            for layer in self.mconv:
                out = layer(out)
            result: Tensor = self.mout(out + self.res(x))
            return result

    def __init__(self, mels: int = 20, letters: int = 29) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(mels, 32, 11, 2, 5), nn.BatchNorm1d(32), nn.ReLU())
        self.blocks = nn.Sequential(self._Block(32, 32, 9, 3), self._Block(32, 32, 9, 3), self._Block(32, 48, 13, 3))
        self.end = nn.Sequential(nn.Conv1d(48, 96, 1), nn.BatchNorm1d(96), nn.ReLU(), nn.Conv1d(96, letters, 1))

    def forward(self, mel: Tensor) -> Tensor:
        """Return log probabilities of letters at every second frame."""
        return F.log_softmax(self.end(self.blocks(self.stem(mel))).transpose(1, 2), dim=-1)


class EcapaTdnn(nn.Module):
    """Speakers by convolutions in scales, squeezed channels, and statistics of time that attention weighs."""

    class _Res2(nn.Module):
        def __init__(self, width: int, dilation: int, scale: int = 4) -> None:
            super().__init__()
            self.width = width // scale
            self.convs = nn.ModuleList(
                [nn.Conv1d(self.width, self.width, 3, dilation=dilation, padding=dilation) for _ in range(scale - 1)]
            )
            self.bns = nn.ModuleList([nn.BatchNorm1d(self.width) for _ in range(scale - 1)])
            self.conv1, self.bn1 = nn.Conv1d(width, width, 1), nn.BatchNorm1d(width)
            self.conv3, self.bn3 = nn.Conv1d(width, width, 1), nn.BatchNorm1d(width)
            self.se = nn.Sequential(
                nn.AdaptiveAvgPool1d(1), nn.Conv1d(width, 16, 1), nn.ReLU(), nn.Conv1d(16, width, 1)
            )

        def forward(self, x: Tensor) -> Tensor:
            pieces = torch.split(self.bn1(F.relu(self.conv1(x))), self.width, 1)
            outs, last = [], pieces[0]
            for i, (conv, bn) in enumerate(zip(self.convs, self.bns, strict=True)):
                last = pieces[i] if i == 0 else last + pieces[i]
                last = bn(F.relu(conv(last)))
                outs.append(last)
            out = self.bn3(F.relu(self.conv3(torch.cat([*outs, pieces[-1]], 1))))
            return x + out * torch.sigmoid(self.se(out))

    def __init__(self, mels: int = 20, width: int = 32, embedding: int = 24) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(mels, width, 5, padding=2), nn.BatchNorm1d(width)
        self.layer1, self.layer2, self.layer3 = (self._Res2(width, d) for d in (2, 3, 4))
        self.layer4 = nn.Conv1d(3 * width, 96, 1)
        self.attention = nn.Sequential(nn.Conv1d(288, 32, 1), nn.ReLU(), nn.Tanh(), nn.Conv1d(32, 96, 1), nn.Softmax(2))
        self.bn5, self.fc6, self.bn6 = nn.BatchNorm1d(192), nn.Linear(192, embedding), nn.BatchNorm1d(embedding)
        self.classes = nn.Parameter(torch.randn(9, embedding))

    def forward(self, x: Tensor) -> Tensor:
        """Return cosines between the speaker's embedding and the centres of the speakers."""
        x = self.bn1(F.relu(self.conv1(x)))
        x1 = self.layer1(x)
        x2 = self.layer2(x + x1)
        x3 = self.layer3(x + x1 + x2)
        x = F.relu(self.layer4(torch.cat((x1, x2, x3), dim=1)))
        t = x.size()[-1]
        mean, std = torch.mean(x, dim=2, keepdim=True), torch.sqrt(torch.var(x, dim=2, keepdim=True).clamp(min=1e-4))
        w = self.attention(torch.cat((x, mean.repeat(1, 1, t), std.repeat(1, 1, t)), dim=1))
        mu = torch.sum(x * w, dim=2)
        sg = torch.sqrt((torch.sum((x**2) * w, dim=2) - mu**2).clamp(min=1e-4))
        embedding = self.bn6(self.fc6(self.bn5(torch.cat((mu, sg), 1))))
        return F.linear(F.normalize(embedding), F.normalize(self.classes))


# --- time series and tables -------------------------------------------------------------------------------------------


class NBeats(nn.Module):
    """Forecasts by blocks that explain a part of the past and take it away; some by trends of a fixed basis."""

    def __init__(self, past: int = 24, future: int = 8, hidden: int = 48, blocks: int = 3) -> None:
        super().__init__()
        degree = 3
        self.stacks = nn.ModuleList()
        for kind in ("trend", "generic"):
            for _ in range(blocks):
                size = 2 * degree if kind == "trend" else past + future
                layers: list[nn.Module] = []
                for i in range(3):
                    layers += [nn.Linear(past if i == 0 else hidden, hidden), nn.ReLU()]
                self.stacks.append(nn.Sequential(*layers, nn.Linear(hidden, size)))
        grid = torch.arange(past + future).float() / past
        self.register_buffer("basis", torch.stack([grid**i for i in range(degree)]))
        self.past, self.degree, self.trends = past, degree, blocks

    def forward(self, x: Tensor) -> Tensor:
        """Return the future of every series."""
        residuals, forecast = x.flip(dims=(1,)), x[:, -1:]
        for i, block in enumerate(self.stacks):
            theta = block(residuals)
            if i < self.trends:
                back, fore = theta[:, : self.degree], theta[:, self.degree :]
                back, fore = back @ self.basis[:, : self.past], fore @ self.basis[:, self.past :]
            else:
                back, fore = theta[:, : self.past], theta[:, self.past :]
            residuals = residuals - back
            forecast = forecast + fore
        return forecast


class PatchForecaster(nn.Module):
    """Forecasts channels one by one from patches of time; series are standardised before, and brought back after."""

    def __init__(self, channels: int = 5, patch: int = 8, stride: int = 4, dim: int = 32, future: int = 6) -> None:
        super().__init__()
        self.patch, self.stride, self.channels = patch, stride, channels
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        patches = (32 - patch) // stride + 2
        self.w_p, self.w_pos = nn.Linear(patch, dim), nn.Parameter(torch.randn(patches, dim) * 0.02)
        self.layers = nn.ModuleList()
        for _ in range(3):
            ff = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * dim, dim))
            parts = {"att": nn.MultiheadAttention(dim, 4, batch_first=True), "ff": ff}
            self.layers.append(nn.ModuleDict({**parts, "n1": nn.BatchNorm1d(dim), "n2": nn.BatchNorm1d(dim)}))
        self.head = nn.Linear(patches * dim, future)

    def forward(self, x: Tensor) -> Tensor:
        """Return the future, of series of shape (samples, steps, channels)."""
        mean = x.mean(1, keepdim=True).detach()
        std = torch.sqrt(x.var(dim=1, keepdim=True, unbiased=False) + 1e-5).detach()
        x = ((x - mean) / std * self.weight + self.bias).permute(0, 2, 1)
        x = F.pad(x, (0, self.stride), mode="replicate").unfold(-1, self.patch, self.stride)
        u = self.w_p(x)
        u = torch.reshape(u, (u.shape[0] * u.shape[1], u.shape[2], u.shape[3])) + self.w_pos
        for layer in self.layers:
            u = u + layer["att"](u, u, u, need_weights=False)[0]
            u = layer["n1"](u.transpose(1, 2)).transpose(1, 2)
            u = u + layer["ff"](u)
            u = layer["n2"](u.transpose(1, 2)).transpose(1, 2)
        z = self.head(u.reshape(-1, self.channels, u.shape[-2] * u.shape[-1])).permute(0, 2, 1)
        return (z - self.bias) / (self.weight + 1e-10) * std + mean  # type: ignore[no-any-return]


class _Grn(nn.Module):
    def __init__(self, before: int, hidden: int, after: int, context: int = 0) -> None:
        super().__init__()
        self.skip = nn.Linear(before, after) if before != after else nn.Identity()
        self.fc1, self.fc2 = nn.Linear(before, hidden), nn.Linear(hidden, hidden)
        self.context = nn.Linear(context, hidden, bias=False) if context else None
        self.gate, self.norm = nn.Linear(hidden, 2 * after), nn.LayerNorm(after)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        a = self.fc1(x)
        if self.context is not None and context is not None:
            a = a + self.context(context).unsqueeze(1)
        a = self.fc2(F.elu(a))
        out: Tensor = self.norm(F.glu(self.gate(a), dim=-1) + self.skip(x))
        return out


class FusionForecaster(nn.Module):
    """Forecasts quantiles: variables are selected by softmax, read by an LSTM, and added through gates everywhere."""

    def __init__(self, variables: int = 4, static: int = 3, dim: int = 24, quantiles: int = 3) -> None:
        super().__init__()
        self.embeds = nn.ModuleList([nn.Linear(1, dim) for _ in range(variables)])
        self.static_embed = nn.Embedding(static, dim)
        self.flat_grn = _Grn(variables * dim, dim, variables, context=dim)
        self.var_grns = nn.ModuleList([_Grn(dim, dim, dim) for _ in range(variables)])
        self.init_h, self.init_c = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.lstm = nn.LSTM(dim, dim, batch_first=True)
        self.gate, self.norm = nn.Linear(dim, 2 * dim), nn.LayerNorm(dim)
        self.enrich, self.attention = _Grn(dim, dim, dim, context=dim), nn.MultiheadAttention(dim, 2, batch_first=True)
        self.att_gate, self.att_norm = nn.Linear(dim, 2 * dim), nn.LayerNorm(dim)
        self.positionwise, self.out = _Grn(dim, 2 * dim, dim), nn.Linear(dim, quantiles)

    def forward(self, series: Tensor, kind: Tensor) -> dict[str, Tensor]:
        """Return quantiles of every step, and which variables were read."""
        static = self.static_embed(kind)
        embedded = [embed(series[..., i : i + 1]) for i, embed in enumerate(self.embeds)]
        weights = self.flat_grn(torch.cat(embedded, dim=-1), static).softmax(dim=-1).unsqueeze(-1)
        read = torch.stack([grn(x) for grn, x in zip(self.var_grns, embedded, strict=True)], dim=-2)
        selected = (weights * read).sum(dim=-2)
        state = (self.init_h(static).unsqueeze(0), self.init_c(static).unsqueeze(0))
        temporal, _ = self.lstm(selected, state)
        temporal = self.norm(F.glu(self.gate(temporal), dim=-1) + selected)
        enriched = self.enrich(temporal, static)
        n = series.size(1)
        mask = torch.ones(n, n, device=series.device).triu(1).bool()
        attended, _ = self.attention(enriched, enriched, enriched, attn_mask=mask)
        attended = self.att_norm(F.glu(self.att_gate(attended), dim=-1) + enriched)
        return {"quantiles": self.out(self.positionwise(attended) + temporal), "weights": weights.squeeze(-1)}


class SplineKan(nn.Module):
    """Layers whose edges are sums of splines, as the efficient rewrites compute them: bases, then one linear map."""

    class _Layer(nn.Module):
        def __init__(self, before: int, after: int, cells: int = 4, order: int = 3) -> None:
            super().__init__()
            self.before, self.after, self.order = before, after, order
            step = 2.0 / cells
            grid = (torch.arange(-order, cells + order + 1) * step - 1).expand(before, -1).contiguous()
            self.register_buffer("grid", grid)
            self.base_weight = nn.Parameter(torch.empty(after, before))
            self.spline_weight = nn.Parameter(torch.randn(after, before, cells + order) * 0.1)
            self.spline_scaler = nn.Parameter(torch.empty(after, before))
            nn.init.kaiming_uniform_(self.base_weight, a=math.sqrt(5))
            nn.init.kaiming_uniform_(self.spline_scaler, a=math.sqrt(5))

        def _bases(self, x: Tensor) -> Tensor:
            grid, x = self.grid, x.unsqueeze(-1)
            bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
            for k in range(1, self.order + 1):
                left = (x - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)]) * bases[:, :, :-1]
                right = (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:(-k)]) * bases[:, :, 1:]
                bases = left + right
            return bases.contiguous()

        def forward(self, x: Tensor) -> Tensor:
            base = F.linear(F.silu(x), self.base_weight)
            scaled = self.spline_weight * self.spline_scaler.unsqueeze(-1)
            return base + F.linear(self._bases(x).view(x.size(0), -1), scaled.view(self.after, -1))

    def __init__(self, sizes: tuple[int, ...] = (8, 32, 32, 3)) -> None:
        super().__init__()
        self.layers = nn.ModuleList([self._Layer(a, b) for a, b in pairwise(sizes)])

    def forward(self, x: Tensor) -> Tensor:
        """Return the values."""
        for layer in self.layers:
            x = layer(x)
        return x


class TwoTower(nn.Module):
    """Retrieval: users and items meet as cosines, scaled by a learned temperature, every user with every item."""

    def __init__(self, users: int = 50, items: int = 60, dim: int = 16) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(users, dim), nn.Embedding(items, dim)
        self.category, self.tags = nn.Embedding(9, 8), nn.EmbeddingBag(20, 8, mode="mean")
        self.user_tower = self._tower(dim + 8)
        self.item_tower = self._tower(dim + 8)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @staticmethod
    def _tower(width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(width, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 24)
        )

    def forward(self, user: Tensor, tags: Tensor, item: Tensor, category: Tensor) -> Tensor:
        """Return the scores of all pairs."""
        u = self.user_tower(torch.cat([self.user(user), self.tags(tags)], dim=-1))
        v = self.item_tower(torch.cat([self.item(item), self.category(category)], dim=-1))
        u = u / u.norm(dim=-1, keepdim=True)
        v = v / v.norm(dim=-1, keepdim=True)
        return self.scale.exp() * u @ v.t()  # type: ignore[no-any-return]


class GaussianActorCritic(nn.Module):
    """A policy that draws actions from a squashed normal distribution, and two critics that score them."""

    def __init__(self, observation: int = 17, action: int = 4, hidden: int = 48) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(observation, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.mu, self.log_std = nn.Linear(hidden, action), nn.Linear(hidden, action)
        self.q1, self.q2 = (
            nn.Sequential(
                nn.Linear(observation + action, hidden), nn.LayerNorm(hidden), nn.Tanh(),
                nn.Linear(hidden, hidden), nn.ELU(), nn.Linear(hidden, 1),
            )
            for _ in range(2)
        )  # fmt: skip

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return actions, the logarithm of their density, and the lower score of both critics."""
        x = self.trunk(observation)
        mu, log_std = self.mu(x), torch.clamp(self.log_std(x), -20, 2)
        std = torch.exp(log_std)
        u = mu + std * torch.randn_like(mu) if self.training else mu
        action = torch.tanh(u)
        density = (-((u - mu) ** 2) / (2 * std**2) - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
        density = density - (2 * (math.log(2) - u - F.softplus(-2 * u))).sum(axis=1)  # type: ignore[call-overload]
        pair = torch.cat([observation, action], dim=-1)
        return action, density, torch.minimum(self.q1(pair), self.q2(pair)).squeeze(-1)


# --- generative -------------------------------------------------------------------------------------------------------


class VectorQuantizer(nn.Module):
    """An autoencoder of images whose code is the nearest of a table; gradients pass the choice by."""

    def __init__(self, width: int = 32, codes: int = 24, dim: int = 12) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width // 2, 4, 2, 1), nn.ReLU(), nn.Conv2d(width // 2, width, 4, 2, 1), nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1),
        )  # fmt: skip
        self.res1 = nn.ModuleList([self._residual(width, 16) for _ in range(2)])
        self.pre, self.codebook = nn.Conv2d(width, dim, 1), nn.Embedding(codes, dim)
        self.post = nn.Conv2d(dim, width, 3, padding=1)
        self.res2 = nn.ModuleList([self._residual(width, 16) for _ in range(2)])
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(width, width // 2, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(width // 2, 3, 4, 2, 1)
        )

    @staticmethod
    def _residual(width: int, inner: int) -> nn.Sequential:
        return nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, inner, 3, 1, 1, bias=False), nn.ReLU(), nn.Conv2d(inner, width, 1, bias=False)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss of the code, the image again, and how many codes are in use."""
        z = self.encoder(x)
        for block in self.res1:
            z = z + block(z)
        z = self.pre(F.relu(z)).permute(0, 2, 3, 1).contiguous()
        flat = z.view(-1, z.shape[-1])
        table = self.codebook.weight
        distances = (flat**2).sum(1, keepdim=True) + (table**2).sum(1) - 2 * flat @ table.t()
        indices = distances.argmin(1)
        quantized = self.codebook(indices).view(z.shape)
        loss = F.mse_loss(quantized, z.detach()) + 0.25 * F.mse_loss(quantized.detach(), z)
        used = torch.bincount(indices, minlength=table.shape[0]).float() / indices.numel()
        perplexity = torch.exp(-(used * (used + 1e-10).log()).sum())
        y = self.post((z + (quantized - z).detach()).permute(0, 3, 1, 2).contiguous())
        for block in self.res2:
            y = y + block(y)
        return loss, self.decoder(F.relu(y)), perplexity


class RealNvp(nn.Module):
    """A normalising flow: half of the values scale and shift the other half; masks say which."""

    def __init__(self, dim: int = 6, hidden: int = 48, layers: int = 4) -> None:
        super().__init__()
        masks = torch.stack([(torch.arange(dim) + i) % 2 for i in range(layers)]).float()
        self.register_buffer("masks", masks)

        def net(last: list[nn.Module]) -> nn.Sequential:
            inner = [nn.Linear(dim, hidden), nn.LeakyReLU(), nn.Linear(hidden, hidden), nn.LeakyReLU()]
            return nn.Sequential(*inner, nn.Linear(hidden, dim), *last)

        self.s = nn.ModuleList([net([nn.Tanh()]) for _ in range(layers)])
        self.t = nn.ModuleList([net([]) for _ in range(layers)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the code and the logarithm of its density."""
        log_det, z = x.new_zeros(x.shape[0]), x
        for i in reversed(range(len(self.t))):
            kept = self.masks[i] * z
            s, t = self.s[i](kept) * (1 - self.masks[i]), self.t[i](kept) * (1 - self.masks[i])
            z = (1 - self.masks[i]) * (z - t) * torch.exp(-s) + kept
            log_det = log_det - s.sum(dim=1)
        return z, log_det - 0.5 * (z**2 + math.log(2 * math.pi)).sum(1)


class HyperNetwork(nn.Module):
    """A network that makes the weights of another, which maps places to colours; another one for every sample."""

    def __init__(self, code: int = 12, inner: int = 16, layers: int = 3) -> None:
        super().__init__()
        self.shapes = [(2, inner)] + [(inner, inner)] * (layers - 2) + [(inner, 3)]
        self.trunk = nn.Sequential(nn.Linear(code, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(64, a * b + b) for a, b in self.shapes])

    def forward(self, code: Tensor, places: Tensor) -> Tensor:
        """Return colours at the places."""
        features, x = self.trunk(code), places
        for i, ((a, b), head) in enumerate(zip(self.shapes, self.heads, strict=True)):
            made = head(features)
            weight, bias = made[:, : a * b].view(-1, a, b), made[:, a * b :]
            x = torch.baddbmm(bias.unsqueeze(1), x, weight / math.sqrt(a))
            if i < len(self.shapes) - 1:
                x = torch.sin(x)
        return x


class OdeNet(nn.Module):
    """A residual network of one block, run by the classical rule of four steps; time is a channel of its own."""

    class _Field(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.GroupNorm(4, dim), nn.GroupNorm(4, dim)
            self.conv1, self.conv2 = (nn.Conv2d(dim + 1, dim, 3, 1, 1) for _ in range(2))

        def forward(self, t: float, x: Tensor) -> Tensor:
            x = F.relu(self.norm1(x))
            x = self.conv1(torch.cat([torch.ones_like(x[:, :1, :, :]) * t, x], 1))
            x = F.relu(self.norm2(x))
            out: Tensor = self.conv2(torch.cat([torch.ones_like(x[:, :1, :, :]) * t, x], 1))
            return out

    def __init__(self, dim: int = 24, classes: int = 10) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(1, dim, 3, 1), nn.GroupNorm(4, dim), nn.ReLU(), nn.Conv2d(dim, dim, 4, 2, 1)
        )
        self.field = self._Field(dim)
        self.head = nn.Sequential(
            nn.GroupNorm(4, dim), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(dim, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of the classes."""
        x, h = self.down(x), 0.5
        for step in range(2):
            t = step * h
            k1 = self.field(t, x)
            k2 = self.field(t + h / 2, x + h / 2 * k1)
            k3 = self.field(t + h / 2, x + h / 2 * k2)
            k4 = self.field(t + h, x + h * k3)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        scores: Tensor = self.head(x)
        return scores


class FourierOperator(nn.Module):
    """Maps fields to fields by complex weights of a few frequencies, beside convolutions of width one."""

    class _Spectral(nn.Module):
        def __init__(self, before: int, after: int, modes: int) -> None:
            super().__init__()
            self.after, self.modes = after, modes
            scale = 1 / (before * after)
            self.weights1 = nn.Parameter(scale * torch.rand(before, after, modes, modes, dtype=torch.cfloat))
            self.weights2 = nn.Parameter(scale * torch.rand(before, after, modes, modes, dtype=torch.cfloat))

        def forward(self, x: Tensor) -> Tensor:
            b, m = x.shape[0], self.modes
            x_ft = torch.fft.rfft2(x)
            out = torch.zeros(b, self.after, x.size(-2), x.size(-1) // 2 + 1, dtype=x_ft.dtype, device=x.device)
            out[:, :, :m, :m] = torch.einsum("bixy,ioxy->boxy", x_ft[:, :, :m, :m], self.weights1)
            out[:, :, -m:, :m] = torch.einsum("bixy,ioxy->boxy", x_ft[:, :, -m:, :m], self.weights2)
            return torch.fft.irfft2(out, s=(x.size(-2), x.size(-1)))

    def __init__(self, width: int = 16, modes: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.p = nn.Linear(3, width)
        self.spectral = nn.ModuleList([self._Spectral(width, width, modes) for _ in range(depth)])
        self.mlps = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(width, width, 1), nn.GELU(), nn.Conv2d(width, width, 1)) for _ in range(depth)]
        )
        self.ws = nn.ModuleList([nn.Conv2d(width, width, 1) for _ in range(depth)])
        self.q = nn.Sequential(nn.Conv2d(width, 4 * width, 1), nn.GELU(), nn.Conv2d(4 * width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the field, of shape (samples, height, width, 1)."""
        b, h, w = x.shape[0], x.shape[1], x.shape[2]
        gx = torch.linspace(0, 1, h, device=x.device).reshape(1, h, 1, 1).repeat([b, 1, w, 1])
        gy = torch.linspace(0, 1, w, device=x.device).reshape(1, 1, w, 1).repeat([b, h, 1, 1])
        x = self.p(torch.cat((x, gx, gy), dim=-1)).permute(0, 3, 1, 2)
        x = F.pad(x, [0, 2, 0, 2])
        for i, (spectral, mlp, local) in enumerate(zip(self.spectral, self.mlps, self.ws, strict=True)):
            x = mlp(spectral(x)) + local(x)
            x = F.gelu(x) if i < len(self.ws) - 1 else x
        return self.q(x[..., :-2, :-2]).permute(0, 2, 3, 1)  # type: ignore[no-any-return]


# --- graphs and points ------------------------------------------------------------------------------------------------


class MessagePassing(nn.Module):
    """Molecules: messages of edges are added to their ends, a recurrent cell updates atoms, sums read the graph out."""

    def __init__(self, atoms: int = 10, bonds: int = 4, dim: int = 32, rounds: int = 3, edges_dim: int = 8) -> None:
        super().__init__()
        self.atom, self.bond = nn.Embedding(atoms, dim), nn.Embedding(bonds, edges_dim)
        self.message = nn.Sequential(nn.Linear(2 * dim + edges_dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))
        self.update, self.rounds = nn.GRUCell(dim, dim), rounds
        self.gate, self.value = nn.Linear(2 * dim, 48), nn.Linear(dim, 48)
        self.out = nn.Linear(48, 1)

    def forward(self, atoms: Tensor, edges: Tensor, bonds: Tensor, graph: Tensor) -> Tensor:
        """Return a value of every graph; `edges` of shape (2, edges), `graph` says which one an atom belongs to."""
        h = first = self.atom(atoms)
        source, target = edges
        for _ in range(self.rounds):
            messages = self.message(torch.cat([h[source], h[target], self.bond(bonds)], dim=-1))
            summed = torch.zeros_like(h).index_add_(0, target, messages)
            h = self.update(summed, h)
        read = torch.sigmoid(self.gate(torch.cat([h, first], -1))) * torch.tanh(self.value(h))
        pooled = torch.zeros(int(graph.max()) + 1, read.size(1), device=read.device, dtype=read.dtype)
        pooled = pooled.scatter_add(0, graph.unsqueeze(-1).expand_as(read), read)
        value: Tensor = self.out(pooled)
        return value


class GraphAttention(nn.Module):
    """Attention along the edges of a graph, by hand: one matrix for all heads, softmax over each node's edges."""

    class _Layer(nn.Module):
        def __init__(self, before: int, after: int, heads: int, concat: bool = True) -> None:
            super().__init__()
            self.heads, self.after, self.concat = heads, after, concat
            self.proj = nn.Linear(before, heads * after, bias=False)
            self.skip = nn.Linear(before, heads * after if concat else after, bias=False)
            self.source, self.target = (nn.Parameter(torch.randn(1, heads, after) * 0.2) for _ in range(2))
            self.bias = nn.Parameter(torch.zeros(heads * after if concat else after))

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            n, (source, target) = x.shape[0], edges
            h = self.proj(F.dropout(x, 0.2, self.training)).view(-1, self.heads, self.after)
            scores = (h * self.source).sum(-1).index_select(0, source) + (h * self.target).sum(-1).index_select(
                0, target
            )
            scores = torch.exp(F.leaky_relu(scores, 0.2) - scores.max())
            total = torch.zeros(n, self.heads, dtype=x.dtype, device=x.device)
            total.scatter_add_(0, target.unsqueeze(-1).expand_as(scores), scores)
            share = scores / (total.index_select(0, target) + 1e-16)
            out = torch.zeros(n, self.heads, self.after, dtype=x.dtype, device=x.device)
            out = out.index_add(0, target, h.index_select(0, source) * share.unsqueeze(-1))
            out = out.view(n, self.heads * self.after) if self.concat else out.mean(dim=1)
            return out + self.skip(x) + self.bias

    def __init__(self, features: int = 9, classes: int = 4) -> None:
        super().__init__()
        self.gat1, self.gat2 = self._Layer(features, 8, 4), self._Layer(32, 8, 4)
        self.gat3 = self._Layer(32, classes, 2, concat=False)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Return scores of every node."""
        x = F.elu(self.gat1(x, edges))
        x = F.elu(self.gat2(x, edges))
        return self.gat3(x, edges)  # type: ignore[no-any-return]


class PointSetNet(nn.Module):
    """Points by groups around centres that lie far apart, each group pooled, and features brought back by distance."""

    class _Abstraction(nn.Module):
        def __init__(self, centres: int, neighbours: int, before: int, widths: tuple[int, ...]) -> None:
            super().__init__()
            self.centres, self.neighbours = centres, neighbours
            self.mlp_convs, self.mlp_bns = nn.ModuleList(), nn.ModuleList()
            for width in widths:
                self.mlp_convs.append(nn.Conv2d(before, width, 1))
                self.mlp_bns.append(nn.BatchNorm2d(width))
                before = width

        def forward(self, xyz: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
            batch, n, _ = xyz.shape
            rows = torch.arange(batch, device=xyz.device)
            farthest, distance = torch.zeros(batch, dtype=torch.long, device=xyz.device), xyz.new_full((batch, n), 1e10)
            chosen = []
            for _ in range(self.centres):
                chosen.append(farthest)
                centre = xyz[rows, farthest, :].view(batch, 1, 3)
                distance = torch.minimum(distance, ((xyz - centre) ** 2).sum(-1))
                farthest = distance.max(-1)[1]
            new_xyz = xyz[rows[:, None], torch.stack(chosen, 1)]
            near = torch.cdist(new_xyz, xyz).topk(self.neighbours, dim=-1, largest=False)[1]
            grouped = xyz[rows[:, None, None], near] - new_xyz.unsqueeze(2)
            x = torch.cat([grouped, points[rows[:, None, None], near]], dim=-1).permute(0, 3, 2, 1)
            for conv, bn in zip(self.mlp_convs, self.mlp_bns, strict=True):
                x = F.relu(bn(conv(x)))
            return new_xyz, torch.max(x, 2)[0].permute(0, 2, 1)

    def __init__(self, parts: int = 5) -> None:
        super().__init__()
        self.lift = nn.Linear(3, 16)
        self.sa1 = self._Abstraction(12, 6, 19, (32, 32, 48))
        self.sa2 = self._Abstraction(4, 4, 51, (64, 96))
        self.fp = nn.Sequential(nn.Linear(96 + 48, 64), nn.LayerNorm(64), nn.ReLU())
        self.head = nn.Sequential(nn.Conv1d(64, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, parts, 1))

    def forward(self, xyz: Tensor) -> Tensor:
        """Return scores of the parts at the centres of the first level."""
        xyz1, p1 = self.sa1(xyz, self.lift(xyz))
        xyz2, p2 = self.sa2(xyz1, p1)
        distances, index = torch.cdist(xyz1, xyz2).sort(dim=-1)
        weight = 1.0 / (distances[:, :, :3] + 1e-8)
        weight = weight / weight.sum(dim=2, keepdim=True)
        rows = torch.arange(xyz.shape[0], device=xyz.device)[:, None, None]
        interpolated = torch.sum(p2[rows, index[:, :, :3]] * weight.unsqueeze(-1), dim=2)
        scores: Tensor = self.head(self.fp(torch.cat([p1, interpolated], dim=-1)).transpose(1, 2))
        return scores


class EquivariantGraph(nn.Module):
    """Moves atoms by messages that know distances alone, over all pairs of atoms."""

    class _Layer(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.edge = nn.Sequential(nn.Linear(2 * dim + 1, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim), nn.SiLU())
            self.node = nn.Sequential(nn.Linear(2 * dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))
            self.coord = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, 1, bias=False))
            self.att = nn.Sequential(nn.Linear(dim, 1), nn.Sigmoid())

        def forward(self, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            b, n, d = h.shape
            offset = x[:, :, None] - x[:, None]
            distance = offset.pow(2).sum(-1, keepdim=True)
            pairs = torch.cat([h[:, :, None].expand(b, n, n, d), h[:, None].expand(b, n, n, d), distance], dim=-1)
            m = self.edge(pairs)
            m = m * self.att(m) * (1 - torch.eye(n, device=h.device))[None, :, :, None]
            x = x + (offset / (distance.sqrt() + 1.0) * self.coord(m)).sum(2) / (n - 1)
            return h + self.node(torch.cat([h, m.sum(2)], dim=-1)), x

    def __init__(self, kinds: int = 6, dim: int = 24, depth: int = 3) -> None:
        super().__init__()
        self.embed, self.layers = nn.Embedding(kinds, dim), nn.ModuleList([self._Layer(dim) for _ in range(depth)])
        self.energy = nn.Sequential(nn.Linear(dim, 32), nn.SiLU(), nn.Linear(32, 1))

    def forward(self, kinds: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies of the molecules and the atoms' new places."""
        h, x = self.embed(kinds), places
        for layer in self.layers:
            h, x = layer(h, x)
        return self.energy(h).sum(dim=1), x
