"""More networks as people write them by hand, for `unseen.yaml`: plain PyTorch, no library of networks.

Each is written the way it is found in papers' code and notebooks, not the way that is easiest to search.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GroupedQueryGPT(nn.Module):
    """A small GPT with a causal mask in a buffer; queries have one layer, and keys and values share another."""

    class Attention(nn.Module):
        """Causal attention of groups of heads to fewer keys and values."""

        def __init__(self, dim: int, heads: int, kv_heads: int, length: int) -> None:
            super().__init__()
            self.n_head, self.n_kv, self.head_dim = heads, kv_heads, dim // heads
            self.q_proj = nn.Linear(dim, dim, bias=False)
            self.kv_proj = nn.Linear(dim, 2 * kv_heads * self.head_dim, bias=False)
            self.c_proj, self.drop = nn.Linear(dim, dim, bias=False), nn.Dropout(0.1)
            self.register_buffer("bias", torch.tril(torch.ones(length, length)).view(1, 1, length, length))

        def forward(self, x: Tensor) -> Tensor:
            """Return what every token reads of those before it."""
            b, t, c = x.size()
            k, v = self.kv_proj(x).split(self.n_kv * self.head_dim, dim=2)
            q = self.q_proj(x).view(b, t, self.n_head, self.head_dim).transpose(1, 2)
            k = k.view(b, t, self.n_kv, self.head_dim).transpose(1, 2)
            v = v.view(b, t, self.n_kv, self.head_dim).transpose(1, 2)
            k = k.repeat_interleave(self.n_head // self.n_kv, dim=1)
            v = v.repeat_interleave(self.n_head // self.n_kv, dim=1)
            att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            att = att.masked_fill(self.bias[:, :, :t, :t] == 0, float("-inf"))
            y = self.drop(F.softmax(att, dim=-1)) @ v
            out: Tensor = self.c_proj(y.transpose(1, 2).contiguous().view(b, t, c))
            return out

    class Block(nn.Module):
        """Attention and a gated perceptron."""

        def __init__(self, dim: int, heads: int, kv_heads: int, length: int) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.attn = GroupedQueryGPT.Attention(dim, heads, kv_heads, length)
            self.mlp = nn.ModuleDict(
                {"gate": nn.Linear(dim, 3 * dim), "up": nn.Linear(dim, 3 * dim), "down": nn.Linear(3 * dim, dim)}
            )

        def forward(self, x: Tensor) -> Tensor:
            """Return the tokens after both."""
            x = x + self.attn(self.ln_1(x))
            y = self.ln_2(x)
            return x + self.mlp["down"](F.silu(self.mlp["gate"](y)) * self.mlp["up"](y))

    def __init__(self, words: int = 90, dim: int = 32, heads: int = 4, kv_heads: int = 2, depth: int = 3) -> None:
        super().__init__()
        length = 16
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(words, dim),
                "wpe": nn.Embedding(length, dim),
                "drop": nn.Dropout(0.1),
                "h": nn.ModuleList([self.Block(dim, heads, kv_heads, length) for _ in range(depth)]),
                "ln_f": nn.LayerNorm(dim),
            }
        )
        self.lm_head = nn.Linear(dim, words, bias=False)

    def forward(self, idx: Tensor) -> Tensor:
        """Return scores of the next word."""
        pos = torch.arange(0, idx.size(1), dtype=torch.long, device=idx.device).unsqueeze(0)
        x = self.transformer["drop"](self.transformer["wte"](idx) + self.transformer["wpe"](pos))
        for block in self.transformer["h"]:
            x = block(x)
        scores: Tensor = self.lm_head(self.transformer["ln_f"](x))
        return scores


class DenseConcatNet(nn.Module):
    """Every layer of a block reads the maps of all layers before it, kept in a list; transitions halve them."""

    def __init__(self, growth: int = 12, layers: tuple[int, ...] = (3, 3), classes: int = 10) -> None:
        super().__init__()
        channels = 2 * growth
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for index, number in enumerate(layers):
            block = nn.ModuleList()
            for _ in range(number):
                block.append(
                    nn.Sequential(
                        nn.BatchNorm2d(channels),
                        nn.ReLU(),
                        nn.Conv2d(channels, 4 * growth, 1, bias=False),
                        nn.BatchNorm2d(4 * growth),
                        nn.ReLU(),
                        nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
                    )
                )
                channels += growth
            self.blocks.append(block)
            if index + 1 < len(layers):
                self.transitions.append(
                    nn.Sequential(
                        nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1, bias=False)
                    )
                )
                channels //= 2
        self.norm, self.fc = nn.BatchNorm2d(channels), nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores."""
        x = self.stem(x)
        for index, block in enumerate(self.blocks):
            features = [x]
            for layer in block:
                features.append(layer(torch.cat(features, 1)))
            x = torch.cat(features, 1)
            if index < len(self.transitions):
                x = F.avg_pool2d(self.transitions[index](x), 2)
        x = F.adaptive_avg_pool2d(F.relu(self.norm(x)), 1)
        scores: Tensor = self.fc(torch.flatten(x, 1))
        return scores


class VGGBlock(nn.Module):
    """Two convolutions, as nested U-Nets have them."""

    def __init__(self, in_channels: int, middle_channels: int, out_channels: int) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.conv1, self.bn1 = nn.Conv2d(in_channels, middle_channels, 3, padding=1), nn.BatchNorm2d(middle_channels)
        self.conv2, self.bn2 = nn.Conv2d(middle_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the new map."""
        out: Tensor = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        return out


class NestedUNet(nn.Module):
    """UNet++: nodes between encoder and decoder read all nodes of their level; three outputs (deep supervision)."""

    def __init__(self, classes: int = 3, nb: tuple[int, int, int, int] = (16, 24, 32, 48)) -> None:
        super().__init__()
        self.pool, self.up = nn.MaxPool2d(2, 2), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv0_0, self.conv1_0 = VGGBlock(3, nb[0], nb[0]), VGGBlock(nb[0], nb[1], nb[1])
        self.conv2_0, self.conv3_0 = VGGBlock(nb[1], nb[2], nb[2]), VGGBlock(nb[2], nb[3], nb[3])
        self.conv0_1 = VGGBlock(nb[0] + nb[1], nb[0], nb[0])
        self.conv1_1 = VGGBlock(nb[1] + nb[2], nb[1], nb[1])
        self.conv2_1 = VGGBlock(nb[2] + nb[3], nb[2], nb[2])
        self.conv0_2 = VGGBlock(nb[0] * 2 + nb[1], nb[0], nb[0])
        self.conv1_2 = VGGBlock(nb[1] * 2 + nb[2], nb[1], nb[1])
        self.conv0_3 = VGGBlock(nb[0] * 3 + nb[1], nb[0], nb[0])
        self.final1, self.final2 = nn.Conv2d(nb[0], classes, 1), nn.Conv2d(nb[0], classes, 1)
        self.final3 = nn.Conv2d(nb[0], classes, 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return masks of three depths."""
        x0_0 = self.conv0_0(image)
        x1_0 = self.conv1_0(self.pool(x0_0))
        x0_1 = self.conv0_1(torch.cat([x0_0, self.up(x1_0)], 1))
        x2_0 = self.conv2_0(self.pool(x1_0))
        x1_1 = self.conv1_1(torch.cat([x1_0, self.up(x2_0)], 1))
        x0_2 = self.conv0_2(torch.cat([x0_0, x0_1, self.up(x1_1)], 1))
        x3_0 = self.conv3_0(self.pool(x2_0))
        x2_1 = self.conv2_1(torch.cat([x2_0, self.up(x3_0)], 1))
        x1_2 = self.conv1_2(torch.cat([x1_0, x1_1, self.up(x2_1)], 1))
        x0_3 = self.conv0_3(torch.cat([x0_0, x0_1, x0_2, self.up(x1_2)], 1))
        return [self.final1(x0_1), self.final2(x0_2), self.final3(x0_3)]


class CRNN(nn.Module):
    """Reads text in images: convolutions down to one row, two bidirectional LSTMs, log-probabilities by step (CTC)."""

    class BidirectionalLSTM(nn.Module):
        """An LSTM and a linear layer."""

        def __init__(self, n_in: int, n_hidden: int, n_out: int) -> None:
            super().__init__()
            self.rnn = nn.LSTM(n_in, n_hidden, bidirectional=True)
            self.embedding = nn.Linear(n_hidden * 2, n_out)

        def forward(self, x: Tensor) -> Tensor:
            """Return features of every step."""
            recurrent, _ = self.rnn(x)
            t, b, h = recurrent.size()
            output: Tensor = self.embedding(recurrent.view(t * b, h))
            return output.view(t, b, -1)

    def __init__(self, width: int = 16, hidden: int = 24, classes: int = 20) -> None:
        super().__init__()
        w = width
        self.cnn = nn.Sequential(
            *(nn.Conv2d(1, w, 3, 1, 1), nn.ReLU(True), nn.MaxPool2d(2, 2)),
            *(nn.Conv2d(w, 2 * w, 3, 1, 1), nn.ReLU(True), nn.MaxPool2d(2, 2)),
            *(nn.Conv2d(2 * w, 3 * w, 3, 1, 1), nn.BatchNorm2d(3 * w), nn.ReLU(True)),
            *(nn.Conv2d(3 * w, 3 * w, 3, 1, 1), nn.ReLU(True), nn.MaxPool2d((2, 2), (2, 1), (0, 1))),
            *(nn.Conv2d(3 * w, 4 * w, 3, 1, 1), nn.BatchNorm2d(4 * w), nn.ReLU(True)),
            *(nn.MaxPool2d((2, 2), (2, 1), (0, 1)), nn.Conv2d(4 * w, 4 * w, 2, 1, 0), nn.ReLU(True)),
        )
        self.rnn = nn.Sequential(
            self.BidirectionalLSTM(4 * w, hidden, hidden), self.BidirectionalLSTM(hidden, hidden, classes)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return log-probabilities: steps, samples, classes."""
        conv = self.cnn(image)
        conv = conv.squeeze(2).permute(2, 0, 1)
        return F.log_softmax(self.rnn(conv), dim=2)


class Chomp1d(nn.Module):
    """Cuts off the steps that padding adds at the end."""

    def __init__(self, chomp_size: int) -> None:
        super().__init__()
        self.chomp_size = chomp_size

    def forward(self, x: Tensor) -> Tensor:
        """Return the steps that remain."""
        return x[:, :, : -self.chomp_size].contiguous()


class TemporalBlock(nn.Module):
    """Two dilated causal convolutions with weight norm beside a shortcut."""

    def __init__(self, n_inputs: int, n_outputs: int, kernel_size: int, dilation: int, dropout: float = 0.2) -> None:
        super().__init__()
        padding = (kernel_size - 1) * dilation
        norm = nn.utils.parametrizations.weight_norm
        self.conv1 = norm(nn.Conv1d(n_inputs, n_outputs, kernel_size, padding=padding, dilation=dilation))
        self.conv2 = norm(nn.Conv1d(n_outputs, n_outputs, kernel_size, padding=padding, dilation=dilation))
        self.net = nn.Sequential(
            *(self.conv1, Chomp1d(padding), nn.ReLU(), nn.Dropout(dropout)),
            *(self.conv2, Chomp1d(padding), nn.ReLU(), nn.Dropout(dropout)),
        )
        self.downsample = nn.Conv1d(n_inputs, n_outputs, 1) if n_inputs != n_outputs else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both."""
        out = self.net(x)
        res = x if self.downsample is None else self.downsample(x)
        total: Tensor = self.relu(out + res)
        return total


class TCN(nn.Module):
    """A temporal convolution network; the last step is classified."""

    def __init__(self, inputs: int = 6, channels: tuple[int, ...] = (24, 24, 32, 32), classes: int = 5) -> None:
        super().__init__()
        pairs = zip((inputs, *channels[:-1]), channels, strict=True)
        self.network = nn.Sequential(*(TemporalBlock(a, b, 3, 2**i) for i, (a, b) in enumerate(pairs)))
        self.linear = nn.Linear(channels[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores."""
        scores: Tensor = self.linear(self.network(x)[:, :, -1])
        return scores


class VAE(nn.Module):
    """A variational autoencoder of images, which samples in training and takes the mean otherwise."""

    def __init__(self, latent: int = 12, hidden: tuple[int, ...] = (16, 32, 48)) -> None:
        super().__init__()
        layers, channels = [], 1
        for width in hidden:
            layers += [nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.LeakyReLU()]
            channels = width
        self.encoder = nn.Sequential(*layers)
        self.fc_mu, self.fc_var = nn.Linear(channels * 16, latent), nn.Linear(channels * 16, latent)
        self.decoder_input, self.channels = nn.Linear(latent, channels * 16), channels
        layers = []
        for width in (*hidden[-2::-1], hidden[0]):
            layers += [nn.ConvTranspose2d(channels, width, 3, 2, 1, output_padding=1), nn.BatchNorm2d(width)]
            layers += [nn.LeakyReLU()]
            channels = width
        self.decoder = nn.Sequential(*layers, nn.Conv2d(channels, 1, 3, padding=1), nn.Sigmoid())

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of the code."""
        h = self.encoder(x).flatten(start_dim=1)
        return self.fc_mu(h), self.fc_var(h)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the image anew, and what its code is."""
        mu, logvar = self.encode(x)
        z = mu
        if self.training:
            std = torch.exp(0.5 * logvar)
            z = mu + torch.randn_like(std) * std
        h = self.decoder_input(z).view(-1, self.channels, 4, 4)
        return self.decoder(h), mu, logvar


class MultiInputHighway(nn.Module):
    """Numbers, categories, a text and an image, given by keyword; highway layers over what they become together."""

    def __init__(self, numbers: int = 7, sizes: tuple[int, ...] = (10, 20, 5), words: int = 60, depth: int = 3) -> None:
        super().__init__()
        self.numeric = nn.Sequential(nn.BatchNorm1d(numbers), nn.Linear(numbers, 24), nn.SELU())
        self.tables = nn.ModuleList(nn.Embedding(size, 8) for size in sizes)
        self.words, self.gru = nn.Embedding(words, 16, padding_idx=0), nn.GRU(16, 20, batch_first=True)
        self.image = nn.Sequential(
            *(nn.Conv2d(3, 12, 3, 2), nn.ReLU6(), nn.Conv2d(12, 20, 3, 2), nn.ReLU6()), nn.AdaptiveAvgPool2d(1)
        )
        dim = 24 + 8 * len(sizes) + 20 + 20
        self.transforms = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))
        self.gates = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))
        self.price, self.kind = nn.Linear(dim, 1), nn.Linear(dim, 4)

    def forward(self, *, numbers: Tensor, categories: Tensor, text: Tensor, image: Tensor) -> dict[str, Tensor]:
        """Return a price and scores of kinds."""
        parts = [self.numeric(numbers)]
        parts += [table(categories[:, i]) for i, table in enumerate(self.tables)]
        _, h = self.gru(self.words(text))
        parts += [h[-1], self.image(image).squeeze(-1).squeeze(-1)]
        x = torch.cat(parts, dim=1)
        for transform, gate in zip(self.transforms, self.gates, strict=True):
            g = torch.sigmoid(gate(x))
            x = g * F.relu(transform(x)) + (1.0 - g) * x
        return {"price": F.softplus(self.price(x)).squeeze(1), "kind": self.kind(x)}


class LatentReader(nn.Module):
    """A perceiver: learnt latents read the pixels by cross-attention, then attend to each other; einsum throughout."""

    class Attention(nn.Module):
        """Attention, to oneself or to a context."""

        def __init__(self, dim: int, context: int, heads: int, size: int) -> None:
            super().__init__()
            self.heads, self.scale, inner = heads, size**-0.5, heads * size
            self.norm, self.norm_context = nn.LayerNorm(dim), nn.LayerNorm(context)
            self.to_q, self.to_kv = nn.Linear(dim, inner, bias=False), nn.Linear(context, inner * 2, bias=False)
            self.to_out = nn.Linear(inner, dim)

        def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
            """Return what is read."""
            x = self.norm(x)
            context = x if context is None else self.norm_context(context)
            q, (k, v) = self.to_q(x), self.to_kv(context).chunk(2, dim=-1)
            q, k, v = (t.unflatten(-1, (self.heads, -1)) for t in (q, k, v))
            attn = (torch.einsum("bihd,bjhd->bhij", q, k) * self.scale).softmax(dim=-1)
            out: Tensor = self.to_out(torch.einsum("bhij,bjhd->bihd", attn, v).flatten(2))
            return out

    def __init__(self, latents: int = 6, dim: int = 32, depth: int = 2, inner_depth: int = 2, classes: int = 7) -> None:
        super().__init__()
        self.latents, self.position = nn.Parameter(torch.randn(latents, dim)), nn.Parameter(torch.randn(64, 12))
        feed = lambda: nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 3 * dim), nn.GELU(), nn.Linear(3 * dim, dim))  # noqa: E731
        self.layers = nn.ModuleList()
        for _ in range(depth):
            inner = nn.ModuleList(nn.ModuleList([self.Attention(dim, dim, 4, 8), feed()]) for _ in range(inner_depth))
            self.layers.append(nn.ModuleList([self.Attention(dim, 15, 1, 16), feed(), inner]))
        self.to_logits = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, classes))

    def forward(self, image: Tensor) -> Tensor:
        """Return scores of an image of 8 x 8 pixels."""
        data = image.flatten(2).transpose(1, 2)
        data = torch.cat((data, self.position.expand(data.shape[0], -1, -1)), dim=-1)
        x = self.latents.unsqueeze(0).repeat(data.shape[0], 1, 1)
        for cross, cross_ff, inner in self.layers:
            x = cross(x, context=data) + x
            x = cross_ff(x) + x
            for attention, ff in inner:
                x = attention(x) + x
                x = ff(x) + x
        scores: Tensor = self.to_logits(x.mean(dim=1))
        return scores
