"""Networks as people write them by hand, for `held_out.yaml`: plain PyTorch, no library of networks.

Each is written the way it is found in papers' code and notebooks, not the way that is easiest to search.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_block(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return two convolutions with norms."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class UNetWithHeads(nn.Module):
    """A U-Net with two dense heads and a classifier, whose outputs are a dict."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48, 64), classes: int = 5) -> None:
        super().__init__()
        self.downs = nn.ModuleList(conv_block(a, b) for a, b in zip((3, *widths[:-1]), widths, strict=True))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairs)
        self.fuses = nn.ModuleList(conv_block(2 * b, b) for _, b in pairs)
        self.mask, self.edge = nn.Conv2d(widths[0], classes, 1), nn.Conv2d(widths[0], 1, 1)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return masks, edges and scores."""
        skips = []
        x = image
        for down in self.downs:
            x = down(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = skips.pop()
        logits = self.classifier(x.mean((2, 3)))
        for up, fuse in zip(self.ups, self.fuses, strict=True):
            x = fuse(torch.cat([up(x), skips.pop()], dim=1))
        return {"mask": self.mask(x), "edge": torch.sigmoid(self.edge(x)), "logits": logits}


class Siamese(nn.Module):
    """One encoder for both images; a head compares their embeddings."""

    def __init__(self, width: int = 24, embedding: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * width * 25, 64),
            nn.ReLU(),
            nn.Linear(64, embedding),
        )
        self.head = nn.Sequential(nn.Linear(2 * embedding, 40), nn.ReLU(), nn.Dropout(0.2), nn.Linear(40, 1))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return how alike two images are."""
        a, b = self.encoder(left), self.encoder(right)
        score: Tensor = self.head(torch.cat([(a - b).abs(), a * b], dim=-1))
        return score.squeeze(-1)


class WaveNet(nn.Module):
    """Dilated causal convolutions with gates; every block adds to the residual path and to a sum of skips."""

    def __init__(self, residual: int = 24, skip: int = 32, layers: int = 6, levels: int = 32) -> None:
        super().__init__()
        self.first = nn.Embedding(levels, residual)
        self.dilations = [2 ** (layer % 4) for layer in range(layers)]
        self.filters = nn.ModuleList(nn.Conv1d(residual, residual, 2, dilation=d) for d in self.dilations)
        self.gates = nn.ModuleList(nn.Conv1d(residual, residual, 2, dilation=d) for d in self.dilations)
        self.residuals = nn.ModuleList(nn.Conv1d(residual, residual, 1) for _ in self.dilations)
        self.skips = nn.ModuleList(nn.Conv1d(residual, skip, 1) for _ in self.dilations)
        self.last = nn.Sequential(nn.ReLU(), nn.Conv1d(skip, 40, 1), nn.ReLU(), nn.Conv1d(40, levels, 1))

    def forward(self, samples: Tensor) -> Tensor:
        """Return scores of the next level at every sample."""
        x = self.first(samples).transpose(1, 2)
        total: Tensor | int = 0
        layers = zip(self.dilations, self.filters, self.gates, self.residuals, self.skips, strict=True)
        for dilation, filters, gate, residual, skip in layers:
            padded = F.pad(x, (dilation, 0))
            z = torch.tanh(filters(padded)) * torch.sigmoid(gate(padded))
            total = total + skip(z)
            x = x + residual(z)
        scores: Tensor = self.last(total)
        return scores


class MixtureOfExperts(nn.Module):
    """Residual mixtures of experts over tokens: a router sends each token to its two best experts."""

    class Layer(nn.Module):
        """One mixture."""

        def __init__(self, dim: int, hidden: int, experts: int, top: int) -> None:
            super().__init__()
            self.norm, self.router, self.top = nn.LayerNorm(dim), nn.Linear(dim, experts, bias=False), top
            self.experts = nn.ModuleList(
                nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)) for _ in range(experts)
            )

        def forward(self, x: Tensor) -> Tensor:
            """Return the sum of the input and of what the experts say."""
            flat = self.norm(x).reshape(-1, x.shape[-1])
            weights, chosen = self.router(flat).softmax(-1).topk(self.top, dim=-1)
            weights = weights / weights.sum(-1, keepdim=True)
            out = torch.zeros_like(flat)
            for index, expert in enumerate(self.experts):
                token, rank = torch.where(chosen == index)
                if token.numel():
                    out.index_add_(0, token, weights[token, rank, None] * expert(flat[token]))
            return x + out.view_as(x)

    def __init__(self, features: int = 20, dim: int = 32, hidden: int = 48, experts: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(features, dim)
        self.layers = nn.ModuleList(self.Layer(dim, hidden, experts, 2) for _ in range(depth))
        self.last = nn.Linear(dim, 6)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of every token."""
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        scores: Tensor = self.last(x)
        return scores


class Translator(nn.Module):
    """A seq2seq: a bidirectional LSTM reads, LSTM cells write, one token at a time, with additive attention."""

    def __init__(self, words: int = 60, embedding: int = 24, hidden: int = 32) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(words, embedding), nn.Embedding(words, embedding)
        self.encoder = nn.LSTM(embedding, hidden, bidirectional=True, batch_first=True)
        self.bridge_h, self.bridge_c = nn.Linear(2 * hidden, hidden), nn.Linear(2 * hidden, hidden)
        self.key, self.query = nn.Linear(2 * hidden, hidden, bias=False), nn.Linear(hidden, hidden)
        self.energy = nn.Linear(hidden, 1, bias=False)
        self.cell = nn.LSTMCell(embedding + 2 * hidden, hidden)
        self.out = nn.Linear(3 * hidden + embedding, words)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Return scores of the words after every word of the target."""
        memory, (h, c) = self.encoder(self.source(source))
        h = torch.tanh(self.bridge_h(torch.cat([h[0], h[1]], dim=-1)))
        c = torch.tanh(self.bridge_c(torch.cat([c[0], c[1]], dim=-1)))
        keys = self.key(memory)
        embedded = self.target(target)
        outputs = []
        for step in range(target.size(1)):
            energy = self.energy(torch.tanh(keys + self.query(h).unsqueeze(1))).squeeze(-1)
            context = torch.bmm(energy.softmax(-1).unsqueeze(1), memory).squeeze(1)
            h, c = self.cell(torch.cat([embedded[:, step], context], dim=-1), (h, c))
            outputs.append(self.out(torch.cat([h, context, embedded[:, step]], dim=-1)))
        return torch.stack(outputs, dim=1)


class FunctionalResNet(nn.Module):
    """A ResNet without modules: parameters and buffers in dicts, torch.nn.functional in the forward."""

    def __init__(self, widths: tuple[int, ...] = (16, 32), blocks: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.weights, self.widths, self.blocks = nn.ParameterDict(), widths, blocks
        self._conv("stem", 3, widths[0], 3)
        before = widths[0]
        for group, width in enumerate(widths):
            for block in range(blocks):
                self._conv(f"g{group}b{block}c0", before, width, 3)
                self._conv(f"g{group}b{block}c1", width, width, 3)
                if before != width:
                    self._conv(f"g{group}b{block}short", before, width, 1)
                before = width
        self.weights["fc"] = nn.Parameter(torch.randn(classes, before) * before**-0.5)
        self.weights["fc_bias"] = nn.Parameter(torch.zeros(classes))

    def _conv(self, name: str, channels_in: int, channels_out: int, size: int) -> None:
        scale = (2 / (channels_in * size * size)) ** 0.5
        self.weights[name] = nn.Parameter(torch.randn(channels_out, channels_in, size, size) * scale)
        self.weights[name + "_gamma"] = nn.Parameter(torch.ones(channels_out))
        self.weights[name + "_beta"] = nn.Parameter(torch.zeros(channels_out))
        self.register_buffer(name + "_mean", torch.zeros(channels_out))
        self.register_buffer(name + "_var", torch.ones(channels_out))

    def _apply_conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.weights[name]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var = getattr(self, name + "_mean"), getattr(self, name + "_var")
        return F.batch_norm(x, mean, var, self.weights[name + "_gamma"], self.weights[name + "_beta"], self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores."""
        x = F.relu(self._apply_conv("stem", x))
        for group in range(len(self.widths)):
            for block in range(self.blocks):
                name = f"g{group}b{block}"
                stride = 2 if group and not block else 1
                y = F.relu(self._apply_conv(name + "c0", x, stride))
                y = self._apply_conv(name + "c1", y)
                short = self._apply_conv(name + "short", x, stride) if name + "short" in self.weights else x
                x = F.relu(short + y)
        return F.linear(x.mean((2, 3)), self.weights["fc"], self.weights["fc_bias"])


class OneForwardTransformer(nn.Module):
    """A pre-norm language model whose blocks are lists of layers, and all of it one forward."""

    def __init__(self, words: int = 80, dim: int = 32, heads: int = 4, depth: int = 3, length: int = 16) -> None:
        super().__init__()
        self.heads = heads
        self.tokens, self.positions = nn.Embedding(words, dim), nn.Parameter(torch.randn(length, dim) * 0.02)
        self.norms1 = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth))
        self.norms2 = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth))
        self.qkvs = nn.ModuleList(nn.Linear(dim, 3 * dim) for _ in range(depth))
        self.projections = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))
        self.ups = nn.ModuleList(nn.Linear(dim, 4 * dim) for _ in range(depth))
        self.downs = nn.ModuleList(nn.Linear(4 * dim, dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores of the next word; the embedding is the last layer, too."""
        b, n = tokens.shape
        x = self.dropout(self.tokens(tokens) + self.positions[:n])
        mask = torch.full((n, n), float("-inf"), device=x.device).triu(1)
        for i in range(len(self.qkvs)):
            q, k, v = self.qkvs[i](self.norms1[i](x)).chunk(3, dim=-1)
            q, k, v = (t.view(b, n, self.heads, -1).transpose(1, 2) for t in (q, k, v))
            attention = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + mask).softmax(-1)
            y = (attention @ v).transpose(1, 2).reshape(b, n, -1)
            x = x + self.dropout(self.projections[i](y))
            x = x + self.dropout(self.downs[i](F.gelu(self.ups[i](self.norms2[i](x)))))
        return self.norm(x) @ self.tokens.weight.t()


class SpeakerNet(nn.Module):
    """A 1-D network with weight norm; the mean and deviation over time go to an embedding of the speaker."""

    def __init__(self, mels: int = 20, width: int = 32, embedding: int = 24, speakers: int = 7) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        sizes = [(mels, width, 5, 1), (width, width, 3, 2), (width, width, 3, 3), (width, 2 * width, 1, 1)]
        self.convs = nn.ModuleList(norm(nn.Conv1d(a, b, k, dilation=d, padding=d * (k // 2))) for a, b, k, d in sizes)
        self.embedding = norm(nn.Linear(4 * width, embedding))
        self.classifier = nn.Linear(embedding, speakers, bias=False)

    def forward(self, mels: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores of the speakers and the embedding."""
        x = mels
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.1)
        pooled = torch.cat([x.mean(-1), x.std(-1)], dim=1)
        embedding = self.embedding(pooled)
        return self.classifier(F.relu(embedding)), F.normalize(embedding, dim=-1)


class SkipAutoencoder(nn.Module):
    """A denoising autoencoder: strided convolutions, a code, transposed ones that also read the encoder's maps."""

    def __init__(self, width: int = 16, code: int = 24) -> None:
        super().__init__()
        w = width
        self.enc1, self.enc2 = nn.Conv2d(3, w, 4, 2, 1), nn.Conv2d(w, 2 * w, 4, 2, 1)
        self.enc3 = nn.Conv2d(2 * w, 4 * w, 4, 2, 1)
        self.norm2, self.norm3 = nn.InstanceNorm2d(2 * w, affine=True), nn.InstanceNorm2d(4 * w, affine=True)
        self.to_code, self.from_code = nn.Linear(4 * w * 16, code), nn.Linear(code, 4 * w * 16)
        self.dec3 = nn.ConvTranspose2d(8 * w, 2 * w, 4, 2, 1)
        self.dec2, self.dec1 = nn.ConvTranspose2d(4 * w, w, 4, 2, 1), nn.ConvTranspose2d(2 * w, 3, 4, 2, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the clean image and its code."""
        e1 = F.elu(self.enc1(image))
        e2 = F.elu(self.norm2(self.enc2(e1)))
        e3 = F.elu(self.norm3(self.enc3(e2)))
        code = self.to_code(e3.flatten(1))
        x = F.elu(self.from_code(code)).view(e3.shape)
        x = F.elu(self.dec3(torch.cat((x, e3), 1)))
        x = F.elu(self.dec2(torch.cat((x, e2), 1)))
        return torch.tanh(self.dec1(torch.cat((x, e1), 1))), code


class AdjacencyGraphNet(nn.Module):
    """Graph convolutions by products with a normalised adjacency matrix, residual, and a readout over the nodes."""

    def __init__(self, features: int = 12, width: int = 32, depth: int = 3, classes: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(features, width)
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth))
        self.loops = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(depth))
        self.gate = nn.Linear(width, 1)
        self.out = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """Return scores of graphs."""
        adjacency = (adjacency + adjacency.transpose(1, 2)).abs()
        degree = adjacency.sum(-1, keepdim=True).clamp(min=1e-6)
        adjacency = adjacency / degree
        x = self.first(x)
        for layer, loop, norm in zip(self.layers, self.loops, self.norms, strict=True):
            y = torch.matmul(adjacency, layer(x)) + loop(x)
            y = norm(y.transpose(1, 2)).transpose(1, 2)
            x = x + F.relu(y)
        weights = self.gate(x).softmax(dim=1)
        scores: Tensor = self.out(torch.cat([(weights * x).sum(1), x.max(dim=1).values], dim=-1))
        return scores


class PointNet(nn.Module):
    """PointNet for parts: a predicted 3x3 transform, shared layers, a maximum over points, joined to every point."""

    def __init__(self, parts: int = 6) -> None:
        super().__init__()
        self.t1, self.t2 = nn.Conv1d(3, 24, 1), nn.Conv1d(24, 48, 1)
        self.t3, self.t4 = nn.Linear(48, 32), nn.Linear(32, 9)
        self.c1, self.c2, self.c3 = nn.Conv1d(3, 32, 1), nn.Conv1d(32, 48, 1), nn.Conv1d(48, 96, 1)
        self.b1, self.b2, self.b3 = nn.BatchNorm1d(32), nn.BatchNorm1d(48), nn.BatchNorm1d(96)
        self.s1, self.s2, self.s3 = nn.Conv1d(96 + 32, 64, 1), nn.Conv1d(64, 32, 1), nn.Conv1d(32, parts, 1)

    def forward(self, points: Tensor) -> Tensor:
        """Return log-probabilities of the parts at every point."""
        x = points.transpose(2, 1)
        t = torch.max(F.relu(self.t2(F.relu(self.t1(x)))), 2)[0]
        t = self.t4(F.relu(self.t3(t))).view(-1, 3, 3) + torch.eye(3, device=x.device)
        x = torch.bmm(points, t).transpose(2, 1)
        local = F.relu(self.b1(self.c1(x)))
        x = F.relu(self.b2(self.c2(local)))
        x = self.b3(self.c3(x))
        world = torch.max(x, 2, keepdim=True)[0].expand(-1, -1, points.shape[1])
        x = F.relu(self.s2(F.relu(self.s1(torch.cat([local, world], 1)))))
        return F.log_softmax(self.s3(x).transpose(1, 2), dim=-1)


class ConditionalGenerator(nn.Module):
    """A GAN's generator: residual blocks that double the size, batch norms with gains by class, and self-attention."""

    class Norm(nn.Module):
        """A batch norm whose gains and offsets an embedding of the class gives."""

        def __init__(self, channels: int, classes: int) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(channels, affine=False)
            self.table = nn.Embedding(classes, 2 * channels)

        def forward(self, x: Tensor, label: Tensor) -> Tensor:
            """Return the normed map."""
            gamma, beta = self.table(label).chunk(2, 1)
            normed: Tensor = self.norm(x)
            return normed * (1 + gamma[:, :, None, None]) + beta[:, :, None, None]

    class Block(nn.Module):
        """A block that doubles the size of the map."""

        def __init__(self, a: int, b: int, classes: int) -> None:
            super().__init__()
            self.n1, self.n2 = ConditionalGenerator.Norm(a, classes), ConditionalGenerator.Norm(b, classes)
            self.c1, self.c2 = nn.Conv2d(a, b, 3, 1, 1), nn.Conv2d(b, b, 3, 1, 1)
            self.short = nn.Conv2d(a, b, 1)

        def forward(self, x: Tensor, label: Tensor) -> Tensor:
            """Return the larger map."""
            y = F.interpolate(F.relu(self.n1(x, label)), scale_factor=2)
            y = self.c2(F.relu(self.n2(self.c1(y), label)))
            return y + self.short(F.interpolate(x, scale_factor=2))

    def __init__(self, noise: int = 20, width: int = 48, classes: int = 5) -> None:
        super().__init__()
        self.width = width
        self.first = nn.utils.parametrizations.spectral_norm(nn.Linear(noise, width * 16))
        self.blocks = nn.ModuleList([self.Block(width, width, classes), self.Block(width, width // 2, classes)])
        self.q, self.k = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width, width // 4, 1)
        self.v, self.gamma = nn.Conv2d(width, width, 1), nn.Parameter(torch.full((1,), 0.1))
        self.norm, self.last = nn.BatchNorm2d(width // 2), nn.Conv2d(width // 2, 3, 3, 1, 1)

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        """Return images."""
        x = self.first(noise).view(-1, self.width, 4, 4)
        x = self.blocks[0](x, label)
        q, k, v = self.q(x).flatten(2), self.k(x).flatten(2), self.v(x).flatten(2)
        attention = torch.softmax(torch.bmm(q.transpose(1, 2), k), dim=-1)
        x = x + self.gamma * torch.bmm(v, attention.transpose(1, 2)).view_as(x)
        x = self.blocks[1](x, label)
        return torch.tanh(self.last(F.relu(self.norm(x))))


class ConvLSTM(nn.Module):
    """A convolutional LSTM over frames that predicts the next one."""

    def __init__(self, channels: int = 1, hidden: int = 16) -> None:
        super().__init__()
        self.hidden = hidden
        self.embed = nn.Conv2d(channels, hidden, 3, padding=1)
        self.gates = nn.Conv2d(2 * hidden, 4 * hidden, 3, padding=1)
        self.head = nn.Sequential(nn.Conv2d(hidden, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, channels, 1))

    def forward(self, frames: Tensor) -> Tensor:
        """Return the frame after the last one."""
        b, steps, _, height, width = frames.shape
        h = frames.new_zeros(b, self.hidden, height, width)
        c = torch.zeros_like(h)
        for step in range(steps):
            x = F.relu(self.embed(frames[:, step]))
            i, f, o, g = torch.split(self.gates(torch.cat([x, h], dim=1)), self.hidden, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        frame: Tensor = self.head(h)
        return frame


class TextCNN(nn.Module):
    """Convolutions of three sizes over words, maxima over time, a highway layer, a classifier."""

    def __init__(self, words: int = 90, embedding: int = 24, filters: int = 16, classes: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding, padding_idx=0)
        self.convs = nn.ModuleList(nn.Conv2d(1, filters, (size, embedding)) for size in (2, 3, 4))
        self.transform, self.gate = nn.Linear(3 * filters, 3 * filters), nn.Linear(3 * filters, 3 * filters)
        self.fc = nn.Linear(3 * filters, classes)

    def forward(self, words: Tensor) -> Tensor:
        """Return scores."""
        x = self.embedding(words).unsqueeze(1)
        maps = [F.relu(conv(x)).squeeze(3) for conv in self.convs]
        x = torch.cat([F.max_pool1d(m, m.size(2)).squeeze(2) for m in maps], 1)
        t = torch.sigmoid(self.gate(x))
        x = t * F.relu(self.transform(x)) + (1 - t) * x
        scores: Tensor = self.fc(F.dropout(x, 0.5, self.training))
        return scores


class CapsuleNet(nn.Module):
    """Capsules with dynamic routing."""

    def __init__(self, classes: int = 5, size: int = 8) -> None:
        super().__init__()
        self.conv, self.primary = nn.Conv2d(1, 32, 5), nn.Conv2d(32, 8 * 6, 5, stride=2)
        self.weight = nn.Parameter(torch.randn(classes, 6 * 16, size, 8) * 0.1)
        self.decoder = nn.Sequential(nn.Linear(classes * size, 48), nn.ReLU(), nn.Linear(48, 256), nn.Sigmoid())

    @staticmethod
    def squash(x: Tensor) -> Tensor:
        """Return vectors with lengths between zero and one."""
        norm = x.pow(2).sum(-1, keepdim=True)
        return norm / (1 + norm) * x / (norm + 1e-8).sqrt()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lengths of the classes' capsules and the image that they describe."""
        x = self.primary(F.relu(self.conv(image)))
        capsules = self.squash(x.view(x.size(0), 6, 8, -1).permute(0, 1, 3, 2).reshape(x.size(0), -1, 8))
        votes = torch.einsum("jiab,nib->njia", self.weight, capsules)
        logits = votes.new_zeros(votes.shape[:3])
        for _ in range(3):
            agreement = logits.softmax(dim=1).unsqueeze(-1)
            out = self.squash((agreement * votes).sum(2))
            logits = logits + (votes * out.unsqueeze(2)).sum(-1)
        return out.norm(dim=-1), self.decoder(out.flatten(1))


class NeuralFactors(nn.Module):
    """Neural collaborative filtering: a product of factors beside a perceptron."""

    def __init__(self, users: int = 40, items: int = 50, factors: int = 16) -> None:
        super().__init__()
        self.user_gmf, self.item_gmf = nn.Embedding(users, factors), nn.Embedding(items, factors)
        self.user_mlp, self.item_mlp = nn.Embedding(users, 32), nn.Embedding(items, 32)
        self.mlp = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Dropout(0.1), nn.Linear(48, 24), nn.ReLU())
        self.out = nn.Linear(factors + 24, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Return the chance of a click."""
        gmf = self.user_gmf(user) * self.item_gmf(item)
        mlp = self.mlp(torch.cat((self.user_mlp(user), self.item_mlp(item)), dim=-1))
        return torch.sigmoid(self.out(torch.cat((gmf, mlp), dim=-1))).view(-1)
