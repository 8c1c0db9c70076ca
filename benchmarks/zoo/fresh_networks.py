"""Networks as people publish them, one class each, for `fresh.yaml`: PyTorch, and einops where its users write so.

Each is written the way its kind is usually found in repositories and tutorials, with the habits that go with it: loops
over steps, tables of settings, closures, weights that are parameters instead of layers, modules used more than once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from einops import rearrange, repeat  # type: ignore[import-not-found]
from einops.layers.torch import Rearrange, Reduce  # type: ignore[import-not-found]
from torch import Tensor, einsum, nn
from torch.nn import functional as F


def four_after_first(tokens: Tensor) -> Tensor:
    """Return the mask of an image's four places in a text: those after the first token."""
    places = torch.arange(tokens.shape[1], device=tokens.device)
    return ((places > 0) & (places < 5)).long().expand_as(tokens)


# --- speech and audio -------------------------------------------------------------------------------------------------


class BatchNormConv1d(nn.Module):
    """A convolution, perhaps an activation, and a batch norm, as Tacotron has them."""

    def __init__(
        self, in_dim: int, out_dim: int, kernel_size: int, padding: int, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1d = nn.Conv1d(in_dim, out_dim, kernel_size=kernel_size, stride=1, padding=padding, bias=False)
        self.bn = nn.BatchNorm1d(out_dim, momentum=0.99, eps=1e-3)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Return the new steps."""
        x = self.conv1d(x)
        if self.activation is not None:
            x = self.activation(x)
        out: Tensor = self.bn(x)
        return out


class Highway(nn.Module):
    """A layer whose gate lets its input pass; the gate is closed at first."""

    def __init__(self, in_size: int, out_size: int) -> None:
        super().__init__()
        self.H = nn.Linear(in_size, out_size)
        self.H.bias.data.zero_()
        self.T = nn.Linear(in_size, out_size)
        self.T.bias.data.fill_(-1)
        self.relu, self.sigmoid = nn.ReLU(), nn.Sigmoid()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the mix of both."""
        H, T = self.relu(self.H(inputs)), self.sigmoid(self.T(inputs))  # noqa: N806
        out: Tensor = H * T + inputs * (1.0 - T)
        return out


class CBHG(nn.Module):
    """A bank of convolutions of several lengths, highway layers, and a recurrent layer that reads both ways."""

    def __init__(self, in_dim: int, K: int, projections: tuple[int, ...], highways: int = 2) -> None:  # noqa: N803
        super().__init__()
        self.in_dim, self.relu = in_dim, nn.ReLU()
        self.conv1d_banks = nn.ModuleList(
            [BatchNormConv1d(in_dim, in_dim, k, padding=k // 2, activation=self.relu) for k in range(1, K + 1)]
        )
        self.max_pool1d = nn.MaxPool1d(kernel_size=2, stride=1, padding=1)
        in_sizes, activations = [K * in_dim, *projections[:-1]], [self.relu] * (len(projections) - 1) + [None]
        self.conv1d_projections = nn.ModuleList(
            [
                BatchNormConv1d(in_size, out_size, 3, padding=1, activation=ac)
                for in_size, out_size, ac in zip(in_sizes, projections, activations, strict=True)
            ]
        )
        self.pre_highway = nn.Linear(projections[-1], in_dim, bias=False)
        self.highways = nn.ModuleList([Highway(in_dim, in_dim) for _ in range(highways)])
        self.gru = nn.GRU(in_dim, in_dim, 1, batch_first=True, bidirectional=True)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return twice as many features of every step."""
        x = inputs.transpose(1, 2)
        T = x.size(-1)  # noqa: N806
        x = torch.cat([conv1d(x)[:, :, :T] for conv1d in self.conv1d_banks], dim=1)
        x = self.max_pool1d(x)[:, :, :T]
        for conv1d in self.conv1d_projections:
            x = conv1d(x)
        x = x.transpose(1, 2)
        if x.size(-1) != self.in_dim:
            x = self.pre_highway(x)
        x += inputs
        for highway in self.highways:
            x = highway(x)
        outputs: Tensor = self.gru(x)[0]
        return outputs


class Tacotron(nn.Module):
    """Text to spectrograms: an encoder, a recurrent decoder with additive attention, fed true frames, and a postnet."""

    class Prenet(nn.Module):
        """Linear layers with dropout."""

        def __init__(self, in_dim: int, sizes: tuple[int, ...]) -> None:
            super().__init__()
            in_sizes = [in_dim, *sizes[:-1]]
            self.layers = nn.ModuleList([nn.Linear(i, o) for i, o in zip(in_sizes, sizes, strict=True)])
            self.relu, self.dropout = nn.ReLU(), nn.Dropout(0.5)

        def forward(self, inputs: Tensor) -> Tensor:
            """Return the last layer's features."""
            for linear in self.layers:
                inputs = self.dropout(self.relu(linear(inputs)))
            return inputs

    def __init__(self, n_vocab: int = 40, embedding_dim: int = 32, mel_dim: int = 20, r: int = 2) -> None:
        super().__init__()
        dim = embedding_dim
        self.mel_dim, self.r = mel_dim, r
        self.embedding = nn.Embedding(n_vocab, dim)
        self.encoder_prenet = self.Prenet(dim, (dim, dim // 2))
        self.encoder_cbhg = CBHG(dim // 2, K=4, projections=(dim // 2, dim // 2))
        self.decoder_prenet = self.Prenet(mel_dim * r, (dim, dim // 2))
        self.attention_rnn = nn.GRUCell(dim // 2 + dim, dim)
        self.query_layer, self.memory_layer = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, 1, bias=False)
        self.project_to_decoder_in = nn.Linear(2 * dim, dim)
        self.decoder_rnns = nn.ModuleList([nn.GRUCell(dim, dim) for _ in range(2)])
        self.proj_to_mel = nn.Linear(dim, mel_dim * r)
        self.postnet = CBHG(mel_dim, K=3, projections=(dim, mel_dim))
        self.last_linear = nn.Linear(mel_dim * 2, 30)

    def forward(self, text: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mel and linear spectrograms, and what every step attends to."""
        memory = self.encoder_cbhg(self.encoder_prenet(self.embedding(text)))
        processed_memory = self.memory_layer(memory)
        B, T = targets.size(0), targets.size(1) // self.r  # noqa: N806
        frames = self.decoder_prenet(targets.contiguous().view(B, T, -1)).transpose(0, 1)
        attention_hidden = memory.new_zeros(B, memory.size(2))
        decoder_hiddens = [memory.new_zeros(B, memory.size(2)) for _ in self.decoder_rnns]
        context = memory.new_zeros(B, memory.size(2))
        outputs, alignments = [], []
        for t in range(T):
            current_input = frames[t - 1] if t > 0 else torch.zeros_like(frames[0])
            attention_hidden = self.attention_rnn(torch.cat((current_input, context), -1), attention_hidden)
            query = self.query_layer(attention_hidden.unsqueeze(1))
            alignment = F.softmax(self.v(torch.tanh(query + processed_memory)).squeeze(-1), dim=1)
            context = torch.bmm(alignment.unsqueeze(1), memory).squeeze(1)
            decoder_input = self.project_to_decoder_in(torch.cat((attention_hidden, context), -1))
            for idx, rnn in enumerate(self.decoder_rnns):
                decoder_hiddens[idx] = rnn(decoder_input, decoder_hiddens[idx])
                decoder_input = decoder_hiddens[idx] + decoder_input
            outputs.append(self.proj_to_mel(decoder_input))
            alignments.append(alignment)
        mel_outputs = torch.stack(outputs).transpose(0, 1).contiguous().view(B, -1, self.mel_dim)
        linear_outputs = self.last_linear(self.postnet(mel_outputs))
        return mel_outputs, linear_outputs, torch.stack(alignments).transpose(0, 1)


class GlobalLayerNorm(nn.Module):
    """A norm over channels and steps with parameters of its own."""

    def __init__(self, channel_size: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, channel_size, 1))
        self.beta = nn.Parameter(torch.zeros(1, channel_size, 1))

    def forward(self, y: Tensor) -> Tensor:
        """Return the normalized steps."""
        mean = y.mean(dim=1, keepdim=True).mean(dim=2, keepdim=True)
        var = (torch.pow(y - mean, 2)).mean(dim=1, keepdim=True).mean(dim=2, keepdim=True)
        return self.gamma * (y - mean) / torch.pow(var + 1e-8, 0.5) + self.beta


class ConvTasNet(nn.Module):
    """Separates speakers: a learnt filter bank, masks by dilated depthwise convolutions, the bank's inverse."""

    class Block(nn.Module):
        """A pointwise, a dilated depthwise and two pointwise convolutions: one goes on, the other is summed up."""

        def __init__(self, B: int, H: int, Sc: int, P: int, dilation: int) -> None:  # noqa: N803
            super().__init__()
            self.conv1x1, self.prelu1, self.norm1 = nn.Conv1d(B, H, 1), nn.PReLU(), GlobalLayerNorm(H)
            padding = (P - 1) * dilation // 2
            self.dconv = nn.Conv1d(H, H, P, padding=padding, dilation=dilation, groups=H)
            self.prelu2, self.norm2 = nn.PReLU(), GlobalLayerNorm(H)
            self.res_out, self.skip_out = nn.Conv1d(H, B, 1), nn.Conv1d(H, Sc, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            """Return the steps for the next block, and for the sum."""
            y = self.norm1(self.prelu1(self.conv1x1(x)))
            y = self.norm2(self.prelu2(self.dconv(y)))
            return x + self.res_out(y), self.skip_out(y)

    def __init__(self, N: int = 32, L: int = 8, B: int = 24, H: int = 48, X: int = 3, R: int = 2, C: int = 2) -> None:  # noqa: N803
        super().__init__()
        self.C, self.N = C, N
        self.encoder = nn.Conv1d(1, N, kernel_size=L, stride=L // 2, bias=False)
        self.layer_norm, self.bottleneck = GlobalLayerNorm(N), nn.Conv1d(N, B, 1, bias=False)
        self.tcn = nn.ModuleList([self.Block(B, H, B, 3, 2**x) for _ in range(R) for x in range(X)])
        self.mask = nn.Sequential(nn.PReLU(), nn.Conv1d(B, C * N, 1), nn.Sigmoid())
        self.decoder = nn.ConvTranspose1d(N, 1, kernel_size=L, stride=L // 2, bias=False)

    def forward(self, mixture: Tensor) -> Tensor:
        """Return the speakers' waves: samples, speakers, steps."""
        M, T = mixture.size()  # noqa: N806
        mixture_w = F.relu(self.encoder(mixture.unsqueeze(1)))
        y, skip_connection = self.bottleneck(self.layer_norm(mixture_w)), 0.0
        for block in self.tcn:
            y, skip = block(y)
            skip_connection = skip_connection + skip
        est_mask = self.mask(skip_connection).view(M, self.C, self.N, -1)
        source_w = mixture_w.unsqueeze(1) * est_mask
        est_source = self.decoder(source_w.view(M * self.C, self.N, -1)).view(M, self.C, -1)
        return F.pad(est_source, (0, T - est_source.size(-1)))


class ListenAttendSpell(nn.Module):
    """Speech to characters: recurrent layers that halve the steps, and a recurrent speller that attends to them."""

    class PyramidLSTM(nn.Module):
        """An LSTM over pairs of steps."""

        def __init__(self, input_dim: int, hidden_dim: int) -> None:
            super().__init__()
            self.blstm = nn.LSTM(input_dim * 2, hidden_dim, bidirectional=True, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            """Return half as many steps."""
            batch_size, timestep, feature_dim = x.size()
            x = x.contiguous().view(batch_size, timestep // 2, feature_dim * 2)
            output: Tensor = self.blstm(x)[0]
            return output

    def __init__(self, input_dim: int = 20, hidden: int = 24, vocab: int = 30, mlp_dim: int = 32) -> None:
        super().__init__()
        self.base = nn.LSTM(input_dim, hidden, bidirectional=True, batch_first=True)
        self.pyramid = nn.Sequential(self.PyramidLSTM(2 * hidden, hidden), self.PyramidLSTM(2 * hidden, hidden))
        self.key_network, self.value_network = nn.Linear(2 * hidden, mlp_dim), nn.Linear(2 * hidden, mlp_dim)
        self.query_network = nn.Linear(2 * hidden, mlp_dim)
        self.embed, self.vocab = nn.Embedding(vocab, 16), vocab
        self.lstm1, self.lstm2 = nn.LSTMCell(16 + mlp_dim, 2 * hidden), nn.LSTMCell(2 * hidden, 2 * hidden)
        self.character_prob = nn.Sequential(nn.Linear(2 * hidden + mlp_dim, 32), nn.Hardtanh(), nn.Linear(32, vocab))

    def forward(self, feats: Tensor, targets: Tensor) -> Tensor:
        """Return scores of the next character after each of the targets."""
        listened = self.pyramid(self.base(feats)[0])
        keys, values = self.key_network(listened), self.value_network(listened)
        context, predictions = values[:, 0, :], []
        state1: tuple[Tensor, Tensor] | None = None
        state2: tuple[Tensor, Tensor] | None = None
        for i in range(targets.shape[1]):
            state1 = self.lstm1(torch.cat([self.embed(targets[:, i]), context], dim=1), state1)
            state2 = self.lstm2(state1[0], state2)
            energy = torch.bmm(keys, self.query_network(state2[0]).unsqueeze(2)).squeeze(2)
            attention = F.softmax(energy / math.sqrt(keys.size(-1)), dim=1)
            context = torch.bmm(attention.unsqueeze(1), values).squeeze(1)
            predictions.append(self.character_prob(torch.cat([state2[0], context], dim=1)).unsqueeze(1))
        return torch.cat(predictions, dim=1)


# --- images -----------------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Adds what a module returns to what it is given."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor, *args: Tensor) -> Tensor:
        """Return the sum."""
        out: Tensor = self.fn(x, *args) + x
        return out


class PreNorm(nn.Module):
    """A norm over all of a sample's maps before a module."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn, self.norm = fn, nn.GroupNorm(1, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the module makes of the normalized maps."""
        out: Tensor = self.fn(self.norm(x))
        return out


class LinearAttention(nn.Module):
    """Attention among pixels whose cost is linear in their number."""

    def __init__(self, dim: int, heads: int = 4, dim_head: int = 8) -> None:
        super().__init__()
        self.scale, self.heads, hidden_dim = dim_head**-0.5, heads, dim_head * heads
        self.to_qkv = nn.Conv2d(dim, hidden_dim * 3, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(hidden_dim, dim, 1), nn.GroupNorm(1, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return the new maps."""
        _, _, h, w = x.shape
        qkv = self.to_qkv(x).chunk(3, dim=1)
        q, k, v = map(lambda t: rearrange(t, "b (h c) x y -> b h c (x y)", h=self.heads), qkv)  # noqa: C417
        q, k = q.softmax(dim=-2) * self.scale, k.softmax(dim=-1)
        context = torch.einsum("b h d n, b h e n -> b h d e", k, v)
        out = torch.einsum("b h d e, b h d n -> b h e n", context, q)
        out = rearrange(out, "b h c (x y) -> b (h c) x y", h=self.heads, x=h, y=w)
        new: Tensor = self.to_out(out)
        return new


class ConvNextUnet(nn.Module):
    """A U-Net that removes noise: ConvNeXt blocks which know the time, and linear attention between them."""

    class ConvNextBlock(nn.Module):
        """A depthwise convolution, the time's bias, and two convolutions, beside a shortcut."""

        def __init__(self, dim: int, dim_out: int, time_emb_dim: int, mult: int = 2, norm: bool = True) -> None:
            super().__init__()
            self.mlp = nn.Sequential(nn.GELU(), nn.Linear(time_emb_dim, dim))
            self.ds_conv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
            self.net = nn.Sequential(
                nn.GroupNorm(1, dim) if norm else nn.Identity(),
                nn.Conv2d(dim, dim_out * mult, 3, padding=1),
                nn.GELU(),
                nn.GroupNorm(1, dim_out * mult),
                nn.Conv2d(dim_out * mult, dim_out, 3, padding=1),
            )
            self.res_conv = nn.Conv2d(dim, dim_out, 1) if dim != dim_out else nn.Identity()

        def forward(self, x: Tensor, time_emb: Tensor) -> Tensor:
            """Return the new maps."""
            h = self.ds_conv(x)
            h = h + rearrange(self.mlp(time_emb), "b c -> b c 1 1")
            out: Tensor = self.net(h) + self.res_conv(x)
            return out

    def __init__(self, dim: int = 16, dim_mults: tuple[int, ...] = (1, 2, 3), channels: int = 3) -> None:
        super().__init__()
        init_dim = dim // 3 * 2
        self.init_conv, self.dim = nn.Conv2d(channels, init_dim, 7, padding=3), dim
        dims = [init_dim, *(dim * m for m in dim_mults)]
        in_out = list(pairwise(dims))
        block_klass, time_dim = partial(self.ConvNextBlock, time_emb_dim=dim * 4, mult=2), dim * 4
        self.time_mlp = nn.Sequential(nn.Linear(dim, time_dim), nn.GELU(), nn.Linear(time_dim, time_dim))
        self.downs, self.ups = nn.ModuleList([]), nn.ModuleList([])
        for ind, (dim_in, dim_out) in enumerate(in_out):
            is_last = ind >= len(in_out) - 1
            self.downs.append(
                nn.ModuleList(
                    [
                        block_klass(dim_in, dim_out),
                        block_klass(dim_out, dim_out),
                        Residual(PreNorm(dim_out, LinearAttention(dim_out))),
                        nn.Conv2d(dim_out, dim_out, 4, 2, 1) if not is_last else nn.Identity(),
                    ]
                )
            )
        mid_dim = dims[-1]
        self.mid_block1, self.mid_block2 = block_klass(mid_dim, mid_dim), block_klass(mid_dim, mid_dim)
        self.mid_attn = Residual(PreNorm(mid_dim, LinearAttention(mid_dim)))
        for dim_in, dim_out in reversed(in_out[1:]):
            self.ups.append(
                nn.ModuleList(
                    [
                        block_klass(dim_out * 2, dim_in),
                        block_klass(dim_in, dim_in),
                        Residual(PreNorm(dim_in, LinearAttention(dim_in))),
                        nn.ConvTranspose2d(dim_in, dim_in, 4, 2, 1),
                    ]
                )
            )
        self.final_block, self.final_conv = block_klass(dim, dim), nn.Conv2d(dim, channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Return the noise in an image at a time."""
        half_dim = self.dim // 2
        frequencies = torch.exp(torch.arange(half_dim, device=x.device) * -(math.log(10000) / (half_dim - 1)))
        embeddings = time[:, None] * frequencies[None, :]
        t = self.time_mlp(torch.cat((embeddings.sin(), embeddings.cos()), dim=-1))
        x, h = self.init_conv(x), []
        for down in self.downs:
            block1, block2, attn, downsample = cast(nn.ModuleList, down)
            x = attn(block2(block1(x, t), t))
            h.append(x)
            x = downsample(x)
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, t)), t)
        for up in self.ups:
            block1, block2, attn, upsample = cast(nn.ModuleList, up)
            x = torch.cat((x, h.pop()), dim=1)
            x = upsample(attn(block2(block1(x, t), t)))
        noise: Tensor = self.final_conv(self.final_block(x, t))
        return noise


class SiamFC(nn.Module):
    """Tracks an object: the exemplar's features, by the same network, are the kernel that searches the image's."""

    class Backbone(nn.Module):
        """Five convolutions without padding, as AlexNet has them."""

        def __init__(self, w: int) -> None:
            super().__init__()
            bn = partial(nn.BatchNorm2d, eps=1e-6, momentum=0.05)
            self.conv1 = nn.Sequential(nn.Conv2d(3, w, 7, 2), bn(w), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2))
            self.conv2 = nn.Sequential(nn.Conv2d(w, 2 * w, 3, 1, groups=2), bn(2 * w), nn.ReLU(inplace=True))
            self.conv3 = nn.Sequential(nn.Conv2d(2 * w, 3 * w, 3, 1), bn(3 * w), nn.ReLU(inplace=True))
            self.conv4 = nn.Sequential(nn.Conv2d(3 * w, 3 * w, 3, 1, groups=2), bn(3 * w), nn.ReLU(inplace=True))
            self.conv5 = nn.Sequential(nn.Conv2d(3 * w, 2 * w, 3, 1, groups=2))

        def forward(self, x: Tensor) -> Tensor:
            """Return the maps of the last."""
            x = self.conv3(self.conv2(self.conv1(x)))
            x = self.conv4(x)
            out: Tensor = self.conv5(x)
            return out

    def __init__(self, width: int = 16, out_scale: float = 0.001) -> None:
        super().__init__()
        self.backbone, self.out_scale = self.Backbone(width), out_scale
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight.data, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(cast(Tensor, m.bias))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """Return how much every place of the image looks like the exemplar."""
        z, x = self.backbone(z), self.backbone(x)
        nz, (nx, c, h, w) = z.size(0), x.size()
        x = x.view(-1, nz * c, h, w)
        out = F.conv2d(x, z, groups=nz)
        return out.view(nx, -1, out.size(-2), out.size(-1)) * self.out_scale


class PreNormResidual(nn.Module):
    """A layer norm, a module, and a shortcut around both."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn, self.norm = fn, nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        out: Tensor = self.fn(self.norm(x)) + x
        return out


class MLPMixer(nn.Sequential):
    """Perceptrons over patches and over channels in turn, as one sequence."""

    def __init__(
        self, image_size: int = 32, patch_size: int = 8, dim: int = 48, depth: int = 3, num_classes: int = 10
    ) -> None:
        num_patches = (image_size // patch_size) ** 2
        chan_first, chan_last = partial(nn.Conv1d, kernel_size=1), nn.Linear

        def feed_forward(dim: int, expansion: float, dense: Callable[[int, int], nn.Module]) -> nn.Sequential:
            inner = int(dim * expansion)
            return nn.Sequential(dense(dim, inner), nn.GELU(), nn.Dropout(0.1), dense(inner, dim), nn.Dropout(0.1))

        super().__init__(
            Rearrange("b c (h p1) (w p2) -> b (h w) (p1 p2 c)", p1=patch_size, p2=patch_size),
            nn.Linear((patch_size**2) * 3, dim),
            *[
                nn.Sequential(
                    PreNormResidual(dim, feed_forward(num_patches, 2, chan_first)),
                    PreNormResidual(dim, feed_forward(dim, 1.5, chan_last)),
                )
                for _ in range(depth)
            ],
            nn.LayerNorm(dim),
            Reduce("b n c -> b c", "mean"),
            nn.Linear(dim, num_classes),
        )


class RCAN(nn.Module):
    """Images four times as large: groups of blocks with channel attention, then shuffled pixels."""

    mean: Tensor

    class CALayer(nn.Module):
        """Weights of channels."""

        def __init__(self, channel: int, reduction: int = 4) -> None:
            super().__init__()
            self.avg_pool = nn.AdaptiveAvgPool2d(1)
            self.conv_du = nn.Sequential(
                nn.Conv2d(channel, channel // reduction, 1, padding=0, bias=True),
                nn.ReLU(inplace=True),
                nn.Conv2d(channel // reduction, channel, 1, padding=0, bias=True),
                nn.Sigmoid(),
            )

        def forward(self, x: Tensor) -> Tensor:
            """Return the weighted maps."""
            out: Tensor = x * self.conv_du(self.avg_pool(x))
            return out

    class RCAB(nn.Module):
        """Two convolutions and the weights."""

        def __init__(self, n_feat: int, res_scale: float = 1.0) -> None:
            super().__init__()
            modules_body: list[nn.Module] = []
            for i in range(2):
                modules_body.append(nn.Conv2d(n_feat, n_feat, 3, padding=1))
                if i == 0:
                    modules_body.append(nn.ReLU(True))
            modules_body.append(RCAN.CALayer(n_feat))
            self.body, self.res_scale = nn.Sequential(*modules_body), res_scale

        def forward(self, x: Tensor) -> Tensor:
            """Return the sum."""
            res: Tensor = self.body(x).mul(self.res_scale)
            res += x
            return res

    class ResidualGroup(nn.Module):
        """Blocks and a convolution."""

        def __init__(self, n_feat: int, n_resblocks: int) -> None:
            super().__init__()
            blocks: list[nn.Module] = [RCAN.RCAB(n_feat) for _ in range(n_resblocks)]
            blocks.append(nn.Conv2d(n_feat, n_feat, 3, padding=1))
            self.body = nn.Sequential(*blocks)

        def forward(self, x: Tensor) -> Tensor:
            """Return the sum."""
            res: Tensor = self.body(x)
            res += x
            return res

    def __init__(self, n_feats: int = 24, n_resgroups: int = 2, n_resblocks: int = 2, scale: int = 4) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1))
        self.head = nn.Sequential(nn.Conv2d(3, n_feats, 3, padding=1))
        self.body = nn.Sequential(
            *[self.ResidualGroup(n_feats, n_resblocks) for _ in range(n_resgroups)],
            nn.Conv2d(n_feats, n_feats, 3, padding=1),
        )
        upsampler: list[nn.Module] = []
        for _ in range(int(math.log2(scale))):
            upsampler += [nn.Conv2d(n_feats, 4 * n_feats, 3, padding=1), nn.PixelShuffle(2)]
        self.tail = nn.Sequential(nn.Sequential(*upsampler), nn.Conv2d(n_feats, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the large image."""
        x = self.head(x - self.mean)
        res = self.body(x)
        res += x
        x = self.tail(res)
        return x + self.mean


class StackedHourglass(nn.Module):
    """Key points: hourglasses, each built of a smaller one, one after the other; all of their heatmaps are returned."""

    class Conv(nn.Module):
        """A convolution, perhaps with batch norm and ReLU."""

        def __init__(
            self, inp: int, out: int, kernel: int = 3, stride: int = 1, bn: bool = False, relu: bool = True
        ) -> None:
            super().__init__()
            self.inp_dim = inp
            self.conv = nn.Conv2d(inp, out, kernel, stride, padding=(kernel - 1) // 2, bias=True)
            self.relu, self.bn = nn.ReLU() if relu else None, nn.BatchNorm2d(out) if bn else None

        def forward(self, x: Tensor) -> Tensor:
            """Return the new maps."""
            assert x.size()[1] == self.inp_dim, f"{x.size()[1]} {self.inp_dim}"
            x = self.conv(x)
            if self.bn is not None:
                x = self.bn(x)
            if self.relu is not None:
                x = self.relu(x)
            return x

    class Residual(nn.Module):
        """Three convolutions, each after batch norm and ReLU, beside a shortcut."""

        def __init__(self, inp_dim: int, out_dim: int) -> None:
            super().__init__()
            conv = StackedHourglass.Conv
            self.relu = nn.ReLU()
            self.bn1, self.conv1 = nn.BatchNorm2d(inp_dim), conv(inp_dim, out_dim // 2, 1, relu=False)
            self.bn2, self.conv2 = nn.BatchNorm2d(out_dim // 2), conv(out_dim // 2, out_dim // 2, 3, relu=False)
            self.bn3, self.conv3 = nn.BatchNorm2d(out_dim // 2), conv(out_dim // 2, out_dim, 1, relu=False)
            self.skip_layer = conv(inp_dim, out_dim, 1, relu=False)
            self.need_skip = inp_dim != out_dim

        def forward(self, x: Tensor) -> Tensor:
            """Return the sum."""
            residual = self.skip_layer(x) if self.need_skip else x
            out = self.conv1(self.relu(self.bn1(x)))
            out = self.conv2(self.relu(self.bn2(out)))
            out = self.conv3(self.relu(self.bn3(out)))
            out += residual
            new: Tensor = out
            return new

    class Hourglass(nn.Module):
        """A branch at full size, and one at half the size with an hourglass inside."""

        def __init__(self, n: int, f: int, increase: int = 8) -> None:
            super().__init__()
            residual, nf = StackedHourglass.Residual, f + increase
            self.up1, self.pool1, self.low1 = residual(f, f), nn.MaxPool2d(2, 2), residual(f, nf)
            self.low2: nn.Module = StackedHourglass.Hourglass(n - 1, nf) if n > 1 else residual(nf, nf)
            self.low3, self.up2 = residual(nf, f), nn.Upsample(scale_factor=2, mode="nearest")

        def forward(self, x: Tensor) -> Tensor:
            """Return the sum of both."""
            up1 = self.up1(x)
            low3 = self.low3(self.low2(self.low1(self.pool1(x))))
            out: Tensor = up1 + self.up2(low3)
            return out

    def __init__(self, nstack: int = 2, inp_dim: int = 24, oup_dim: int = 7) -> None:
        super().__init__()
        conv, residual = self.Conv, self.Residual
        self.nstack = nstack
        self.pre = nn.Sequential(
            conv(3, 16, 7, 2, bn=True), residual(16, 24), nn.MaxPool2d(2, 2), residual(24, inp_dim)
        )
        self.hgs = nn.ModuleList([self.Hourglass(2, inp_dim) for _ in range(nstack)])
        self.features = nn.ModuleList(
            [nn.Sequential(residual(inp_dim, inp_dim), conv(inp_dim, inp_dim, 1, bn=True)) for _ in range(nstack)]
        )
        self.outs = nn.ModuleList([conv(inp_dim, oup_dim, 1, relu=False) for _ in range(nstack)])
        self.merge_features = nn.ModuleList([conv(inp_dim, inp_dim, 1, relu=False) for _ in range(nstack - 1)])
        self.merge_preds = nn.ModuleList([conv(oup_dim, inp_dim, 1, relu=False) for _ in range(nstack - 1)])

    def forward(self, imgs: Tensor) -> Tensor:
        """Return heatmaps: samples, hourglasses, points, places."""
        x, combined_hm_preds = self.pre(imgs), []
        for i in range(self.nstack):
            feature = self.features[i](self.hgs[i](x))
            preds = self.outs[i](feature)
            combined_hm_preds.append(preds)
            if i < self.nstack - 1:
                x = x + self.merge_preds[i](preds) + self.merge_features[i](feature)
        return torch.stack(combined_hm_preds, 1)


class CrossStitch(nn.Module):
    """Two tasks, two towers; after every stage, each channel of a tower is a learnt mix of both towers' channels."""

    def __init__(self, widths: tuple[int, ...] = (16, 24, 32), classes: int = 4) -> None:
        super().__init__()
        self.tasks = ["segmentation", "normals"]
        self.towers, self.stitches, channels = nn.ModuleList(), nn.ParameterList(), 3
        for width in widths:
            self.towers.append(
                nn.ModuleDict(
                    {
                        task: nn.Sequential(
                            *(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ELU()),
                            *(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ELU()),
                        )
                        for task in self.tasks
                    }
                )
            )
            self.stitches.append(nn.Parameter(torch.tensor([[0.9, 0.1], [0.1, 0.9]]).repeat(width, 1, 1)))
            channels = width
        outputs = {"segmentation": classes, "normals": 3}
        self.heads = nn.ModuleDict({task: nn.Conv2d(channels, outputs[task], 1) for task in self.tasks})
        self.log_vars = nn.ParameterDict({task: nn.Parameter(torch.zeros(1)) for task in self.tasks})

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return every task's maps, in the image's size and weighted by what is known of its uncertainty."""
        features = dict.fromkeys(self.tasks, image)
        for stage, stitch in zip(self.towers, self.stitches, strict=True):
            both = torch.stack([F.max_pool2d(stage[task](features[task]), 2) for task in self.tasks], dim=-1)  # type: ignore[index]
            mixed = torch.einsum("bchwi,cij->bchwj", both, stitch)
            features = {task: mixed[..., i] for i, task in enumerate(self.tasks)}
        out = {}
        for task in self.tasks:
            x = F.interpolate(self.heads[task](features[task]), image.shape[-2:], mode="bilinear", align_corners=False)
            out[task] = x * torch.exp(-self.log_vars[task])
        out["normals"] = F.normalize(out["normals"], dim=1)
        return out


class Scale(nn.Module):
    """A factor."""

    def __init__(self, init_value: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.FloatTensor([init_value]))

    def forward(self, x: Tensor) -> Tensor:
        """Return the product."""
        return x * self.scale


class FPNDetector(nn.Module):
    """Boxes without anchors (FCOS): a pyramid of maps over a small ResNet, and heads that all levels share."""

    cls_tower: nn.Sequential
    bbox_tower: nn.Sequential

    class BasicBlock(nn.Module):
        """Two convolutions beside a shortcut."""

        def __init__(self, in_planes: int, planes: int, stride: int = 1) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(planes)
            self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False), nn.BatchNorm2d(planes)
            self.shortcut = nn.Sequential()
            if stride != 1 or in_planes != planes:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(in_planes, planes, 1, stride=stride, bias=False), nn.BatchNorm2d(planes)
                )

        def forward(self, x: Tensor) -> Tensor:
            """Return the sum."""
            out = F.relu(self.bn1(self.conv1(x)))
            out = self.bn2(self.conv2(out))
            out += self.shortcut(x)
            return F.relu(out)

    def __init__(self, num_classes: int = 4, channels: int = 32, width: int = 16, convs: int = 2) -> None:
        super().__init__()
        self.in_planes, self.num_classes = width, num_classes
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.layer1, self.layer2 = self._make_layer(width, 2, 2), self._make_layer(2 * width, 2, 2)
        self.layer3, self.layer4 = self._make_layer(3 * width, 1, 2), self._make_layer(4 * width, 1, 2)
        self.latlayer1 = nn.Conv2d(4 * width, channels, 1)
        self.latlayer2, self.latlayer3 = nn.Conv2d(3 * width, channels, 1), nn.Conv2d(2 * width, channels, 1)
        self.toplayer1, self.toplayer2 = nn.Conv2d(channels, channels, 3, 1, 1), nn.Conv2d(channels, channels, 3, 1, 1)
        self.toplayer3, self.conv6 = nn.Conv2d(channels, channels, 3, 1, 1), nn.Conv2d(channels, channels, 3, 2, 1)
        cls_tower: list[nn.Module] = []
        bbox_tower: list[nn.Module] = []
        for tower in (cls_tower, bbox_tower):
            for _ in range(convs):
                tower += [nn.Conv2d(channels, channels, 3, 1, 1), nn.GroupNorm(8, channels), nn.ReLU()]
        self.add_module("cls_tower", nn.Sequential(*cls_tower))
        self.add_module("bbox_tower", nn.Sequential(*bbox_tower))
        self.cls_logits = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.bbox_pred, self.centerness = nn.Conv2d(channels, 4, 3, padding=1), nn.Conv2d(channels, 1, 3, padding=1)
        self.scales = nn.ModuleList([Scale(1.0) for _ in range(4)])
        nn.init.constant_(cast(Tensor, self.cls_logits.bias), -math.log((1 - 0.01) / 0.01))

    def _make_layer(self, planes: int, num_blocks: int, stride: int) -> nn.Sequential:
        layers = []
        for s in [stride] + [1] * (num_blocks - 1):
            layers.append(self.BasicBlock(self.in_planes, planes, s))
            self.in_planes = planes
        return nn.Sequential(*layers)

    def _upsample_add(self, x: Tensor, y: Tensor) -> Tensor:
        _, _, H, W = y.size()  # noqa: N806
        return F.interpolate(x, size=(H, W), mode="nearest") + y

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores, boxes and centrality of every place of every level."""
        c1 = F.relu(self.bn1(self.conv1(x)))
        c2 = self.layer1(c1)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        c5 = self.layer4(c4)
        p5 = self.latlayer1(c5)
        p4 = self._upsample_add(p5, self.latlayer2(c4))
        p3 = self._upsample_add(p4, self.latlayer3(c3))
        p5, p4, p3 = self.toplayer1(p5), self.toplayer2(p4), self.toplayer3(p3)
        logits, bbox_reg, centerness = [], [], []
        for level, feature in enumerate([p3, p4, p5, self.conv6(p5)]):
            cls_tower, box_tower = self.cls_tower(feature), self.bbox_tower(feature)
            scores = self.cls_logits(cls_tower).permute(0, 2, 3, 1)
            logits.append(scores.reshape(x.size(0), -1, self.num_classes))
            boxes = torch.exp(self.scales[level](self.bbox_pred(box_tower)))
            bbox_reg.append(boxes.permute(0, 2, 3, 1).reshape(x.size(0), -1, 4))
            centerness.append(self.centerness(box_tower).flatten(1))
        return torch.cat(logits, 1), torch.cat(bbox_reg, 1), torch.cat(centerness, 1)


def _make_divisible(v: float, divisor: int = 8) -> int:
    """Return the multiple that is nearest, but not much smaller."""
    new_v = max(divisor, int(v + divisor / 2) // divisor * divisor)
    return new_v + divisor if new_v < 0.9 * v else new_v


class MobileNetV3(nn.Module):
    """Inverted residuals with squeeze-and-excitation and hard swish, as a table lists them."""

    class HSigmoid(nn.Module):
        """A sigmoid of straight lines."""

        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU6(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            """Return values from 0 to 1."""
            out: Tensor = self.relu(x + 3) / 6
            return out

    class HSwish(nn.Module):
        """A swish of straight lines."""

        def __init__(self) -> None:
            super().__init__()
            self.sigmoid = MobileNetV3.HSigmoid()

        def forward(self, x: Tensor) -> Tensor:
            """Return the product with the sigmoid."""
            out: Tensor = x * self.sigmoid(x)
            return out

    class SELayer(nn.Module):
        """Weights of channels by two linear layers."""

        def __init__(self, channel: int, reduction: int = 4) -> None:
            super().__init__()
            self.avg_pool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Sequential(
                nn.Linear(channel, _make_divisible(channel // reduction)),
                nn.ReLU(inplace=True),
                nn.Linear(_make_divisible(channel // reduction), channel),
                MobileNetV3.HSigmoid(),
            )

        def forward(self, x: Tensor) -> Tensor:
            """Return the weighted maps."""
            b, c, _, _ = x.size()
            y = self.avg_pool(x).view(b, c)
            y = self.fc(y).view(b, c, 1, 1)
            out: Tensor = x * y
            return out

    class InvertedResidual(nn.Module):
        """A wide depthwise convolution between pointwise ones; its first is left out where it would not widen."""

        def __init__(self, inp: int, hidden: int, oup: int, kernel: int, stride: int, use_se: int, use_hs: int) -> None:
            super().__init__()
            self.identity = stride == 1 and inp == oup
            act = MobileNetV3.HSwish if use_hs else partial(nn.ReLU, inplace=True)
            se = MobileNetV3.SELayer(hidden) if use_se else nn.Identity()
            dw = nn.Conv2d(hidden, hidden, kernel, stride, (kernel - 1) // 2, groups=hidden, bias=False)
            layers: list[nn.Module]
            if inp == hidden:
                layers = [dw, nn.BatchNorm2d(hidden), act(), se]
            else:
                layers = [nn.Conv2d(inp, hidden, 1, bias=False), nn.BatchNorm2d(hidden), act()]
                layers += [dw, nn.BatchNorm2d(hidden), se, act()]
            self.conv = nn.Sequential(*layers, nn.Conv2d(hidden, oup, 1, bias=False), nn.BatchNorm2d(oup))

        def forward(self, x: Tensor) -> Tensor:
            """Return the new maps, with the old ones added where they fit."""
            y: Tensor = self.conv(x)
            return x + y if self.identity else y

    def __init__(self, num_classes: int = 10, width_mult: float = 1.0) -> None:
        super().__init__()
        cfgs: list[list[float]] = [  # kernel, expansion, channels, squeeze-and-excitation, hard swish, stride
            [3, 1, 16, 1, 0, 2],
            [3, 4, 24, 0, 0, 2],
            [3, 3.5, 24, 0, 0, 1],
            [5, 4, 40, 1, 1, 2],
            [5, 6, 40, 1, 1, 1],
        ]
        input_channel = _make_divisible(16 * width_mult)
        layers = [self._conv_bn(3, input_channel, 3, 2)]
        exp_size = input_channel
        for k, t, c, use_se, use_hs, s in cfgs:
            output_channel, exp_size = _make_divisible(c * width_mult), _make_divisible(input_channel * t)
            layers.append(
                self.InvertedResidual(input_channel, exp_size, output_channel, int(k), int(s), int(use_se), int(use_hs))
            )
            input_channel = output_channel
        self.features = nn.Sequential(*layers)
        self.conv, self.avgpool = self._conv_bn(input_channel, exp_size, 1, 1), nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Sequential(
            nn.Linear(exp_size, 128), self.HSwish(), nn.Dropout(0.2), nn.Linear(128, num_classes)
        )

    def _conv_bn(self, inp: int, oup: int, kernel: int, stride: int) -> nn.Module:
        conv = nn.Conv2d(inp, oup, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(oup), self.HSwish())

    def forward(self, x: Tensor) -> Tensor:
        """Return scores."""
        x = self.avgpool(self.conv(self.features(x)))
        x = x.view(x.size(0), -1)
        scores: Tensor = self.classifier(x)
        return scores


# --- generative models ------------------------------------------------------------------------------------------------


class CVAE(nn.Module):
    """The tutorials' variational autoencoder of perceptrons, with the label joined to the image and to the code."""

    def __init__(self, feature_size: int = 64, latent_size: int = 8, class_size: int = 10) -> None:
        super().__init__()
        self.feature_size, self.class_size = feature_size, class_size
        self.fc1 = nn.Linear(feature_size + class_size, 48)
        self.fc21 = nn.Linear(48, latent_size)
        self.fc22 = nn.Linear(48, latent_size)
        self.fc3 = nn.Linear(latent_size + class_size, 48)
        self.fc4 = nn.Linear(48, feature_size)
        self.elu, self.sigmoid = nn.ELU(), nn.Sigmoid()

    def encode(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance."""
        h1 = self.elu(self.fc1(torch.cat([x, c], 1)))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """Return a sample in training, the mean otherwise."""
        if not self.training:
            return mu
        std = torch.exp(0.5 * logvar)
        return mu + torch.randn_like(std) * std

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        """Return the image of a code."""
        h3 = self.elu(self.fc3(torch.cat([z, c], 1)))
        image: Tensor = self.sigmoid(self.fc4(h3))
        return image

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the image anew, and what its code is."""
        c = F.one_hot(c, self.class_size).to(x.dtype)
        mu, logvar = self.encode(x.view(-1, self.feature_size), c)
        return self.decode(self.reparameterize(mu, logvar), c), mu, logvar


class EqualLinear(nn.Module):
    """A linear layer whose weight is scaled at every call."""

    def __init__(self, in_dim: int, out_dim: int, bias_init: float = 0, lr_mul: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_dim, in_dim).div_(lr_mul))
        self.bias = nn.Parameter(torch.zeros(out_dim).fill_(bias_init))
        self.scale, self.lr_mul = (1 / math.sqrt(in_dim)) * lr_mul, lr_mul

    def forward(self, x: Tensor) -> Tensor:
        """Return the new features."""
        return F.linear(x, self.weight * self.scale, bias=self.bias * self.lr_mul)


class StyleGenerator(nn.Module):
    """StyleGAN2: a style, made of noise, scales the kernels of every sample anew; images add up from small to large."""

    class ModulatedConv2d(nn.Module):
        """A convolution with one kernel for each sample, done as groups."""

        def __init__(
            self, in_channel: int, out_channel: int, kernel: int, style_dim: int, demodulate: bool = True
        ) -> None:
            super().__init__()
            self.in_channel, self.out_channel, self.kernel = in_channel, out_channel, kernel
            self.scale, self.padding = 1 / math.sqrt(in_channel * kernel**2), kernel // 2
            self.weight = nn.Parameter(torch.randn(1, out_channel, in_channel, kernel, kernel))
            self.modulation, self.demodulate = EqualLinear(style_dim, in_channel, bias_init=1), demodulate

        def forward(self, x: Tensor, style: Tensor) -> Tensor:
            """Return the new maps."""
            batch, in_channel, height, width = x.shape
            style = self.modulation(style).view(batch, 1, in_channel, 1, 1)
            weight = self.scale * self.weight * style
            if self.demodulate:
                demod = torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + 1e-8)
                weight = weight * demod.view(batch, self.out_channel, 1, 1, 1)
            weight = weight.view(batch * self.out_channel, in_channel, self.kernel, self.kernel)
            x = x.view(1, batch * in_channel, height, width)
            out = F.conv2d(x, weight, padding=self.padding, groups=batch)
            return out.view(batch, self.out_channel, height, width)

    class StyledConv(nn.Module):
        """The convolution, a fixed noise with a learnt weight, a bias and a leaky ReLU."""

        noise: Tensor

        def __init__(self, in_channel: int, out_channel: int, style_dim: int, size: int, upsample: bool) -> None:
            super().__init__()
            self.conv = StyleGenerator.ModulatedConv2d(in_channel, out_channel, 3, style_dim)
            self.weight, self.bias = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1, out_channel, 1, 1))
            self.register_buffer("noise", torch.randn(1, 1, size, size))
            self.upsample = upsample

        def forward(self, x: Tensor, style: Tensor) -> Tensor:
            """Return the new maps."""
            if self.upsample:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = self.conv(x, style) + self.weight * self.noise
            return F.leaky_relu(x + self.bias, 0.2) * math.sqrt(2)

    def __init__(self, style_dim: int = 32, n_mlp: int = 3, channels: tuple[int, ...] = (48, 32, 24)) -> None:
        super().__init__()
        self.style = nn.ModuleList([EqualLinear(style_dim, style_dim, lr_mul=0.01) for _ in range(n_mlp)])
        self.input = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.conv1 = self.StyledConv(channels[0], channels[0], style_dim, 4, upsample=False)
        self.to_rgb1 = self.ModulatedConv2d(channels[0], 3, 1, style_dim, demodulate=False)
        self.convs, self.to_rgbs, in_channel = nn.ModuleList(), nn.ModuleList(), channels[0]
        for i, out_channel in enumerate(channels[1:], start=3):
            self.convs.append(self.StyledConv(in_channel, out_channel, style_dim, 2**i, upsample=True))
            self.convs.append(self.StyledConv(out_channel, out_channel, style_dim, 2**i, upsample=False))
            self.to_rgbs.append(self.ModulatedConv2d(out_channel, 3, 1, style_dim, demodulate=False))
            in_channel = out_channel

    def forward(self, z: Tensor) -> Tensor:
        """Return images of noise."""
        w = z * torch.rsqrt(torch.mean(z**2, dim=1, keepdim=True) + 1e-8)
        for layer in self.style:
            w = F.leaky_relu(layer(w), 0.2)
        out = self.conv1(self.input.repeat(z.shape[0], 1, 1, 1), w)
        skip = self.to_rgb1(out, w)
        for conv1, conv2, to_rgb in zip(self.convs[::2], self.convs[1::2], self.to_rgbs, strict=True):
            out = conv2(conv1(out, w), w)
            skip = F.interpolate(skip, scale_factor=2, mode="bilinear", align_corners=False) + to_rgb(out, w)
        image: Tensor = skip
        return image


class ProjectionDiscriminator(nn.Module):
    """Tells made images from true ones of a class: spectral norms throughout, and a map of the batch's variation."""

    def __init__(self, ndf: int = 16, num_classes: int = 6) -> None:
        super().__init__()
        sn = nn.utils.spectral_norm

        def block(in_channels: int, out_channels: int) -> list[nn.Module]:
            return [
                sn(nn.Conv2d(in_channels, out_channels, 4, 2, 1, bias=False)),
                nn.LeakyReLU(0.2, inplace=True),
            ]

        self.main = nn.Sequential(*block(3, ndf), *block(ndf, ndf * 2), *block(ndf * 2, ndf * 4))
        self.last = nn.Sequential(sn(nn.Conv2d(ndf * 4 + 1, ndf * 4, 3, 1, 1)), nn.LeakyReLU(0.2, inplace=True))
        self.linear, self.embed = sn(nn.Linear(ndf * 4, 1)), sn(nn.Embedding(num_classes, ndf * 4))

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        """Return one score for each image."""
        h = self.main(image)
        stddev = torch.sqrt(h.var(0, unbiased=False) + 1e-8).mean()
        h = torch.cat([h, stddev.expand(h.size(0), 1, h.size(2), h.size(3))], 1)
        h = torch.sum(self.last(h), dim=(2, 3))
        score = self.linear(h).squeeze(1)
        projection = torch.sum(self.embed(label) * h, dim=1)
        total: Tensor = score + projection
        return total


# --- reinforcement learning -------------------------------------------------------------------------------------------


class NoisyLinear(nn.Module):
    """A linear layer with learnt noise on its weights in training."""

    weight_epsilon: Tensor
    bias_epsilon: Tensor

    def __init__(self, in_features: int, out_features: int, std_init: float = 0.5) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight_mu = nn.Parameter(torch.empty(out_features, in_features))
        self.weight_sigma = nn.Parameter(torch.empty(out_features, in_features))
        self.register_buffer("weight_epsilon", torch.empty(out_features, in_features))
        self.bias_mu, self.bias_sigma = nn.Parameter(torch.empty(out_features)), nn.Parameter(torch.empty(out_features))
        self.register_buffer("bias_epsilon", torch.empty(out_features))
        mu_range = 1 / math.sqrt(in_features)
        self.weight_mu.data.uniform_(-mu_range, mu_range)
        self.weight_sigma.data.fill_(std_init / math.sqrt(in_features))
        self.bias_mu.data.uniform_(-mu_range, mu_range)
        self.bias_sigma.data.fill_(std_init / math.sqrt(out_features))
        self.reset_noise()

    def _scale_noise(self, size: int) -> Tensor:
        x = torch.randn(size, device=self.weight_mu.device)
        return x.sign().mul_(x.abs().sqrt_())

    def reset_noise(self) -> None:
        """Draw the noise anew."""
        epsilon_in, epsilon_out = self._scale_noise(self.in_features), self._scale_noise(self.out_features)
        self.weight_epsilon.copy_(epsilon_out.ger(epsilon_in))
        self.bias_epsilon.copy_(epsilon_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return the new features."""
        if self.training:
            weight = self.weight_mu + self.weight_sigma * self.weight_epsilon
            return F.linear(x, weight, self.bias_mu + self.bias_sigma * self.bias_epsilon)
        return F.linear(x, self.weight_mu, self.bias_mu)


class RainbowDQN(nn.Module):
    """Distributions of returns of actions: values and advantages by noisy layers over convolutions of four frames."""

    def __init__(self, action_space: int = 5, atoms: int = 11, hidden_size: int = 32) -> None:
        super().__init__()
        self.atoms, self.action_space = atoms, action_space
        self.convs = nn.Sequential(
            *(nn.Conv2d(4, 16, 8, stride=4, padding=0), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=2, padding=0)),
            *(nn.ReLU(), nn.Conv2d(32, 32, 3, stride=1, padding=0), nn.ReLU()),
        )
        with torch.no_grad():
            self.conv_output_size = self.convs(torch.zeros(1, 4, 52, 52)).numel()
        self.fc_h_v, self.fc_h_a = (NoisyLinear(self.conv_output_size, hidden_size) for _ in range(2))
        self.fc_z_v, self.fc_z_a = NoisyLinear(hidden_size, atoms), NoisyLinear(hidden_size, action_space * atoms)

    def forward(self, x: Tensor, log: bool = False) -> Tensor:
        """Return probabilities of every action's returns."""
        x = self.convs(x)
        x = x.view(-1, self.conv_output_size)
        v = self.fc_z_v(F.relu(self.fc_h_v(x)))
        a = self.fc_z_a(F.relu(self.fc_h_a(x)))
        v, a = v.view(-1, 1, self.atoms), a.view(-1, self.action_space, self.atoms)
        q = v + a - a.mean(1, keepdim=True)
        return F.log_softmax(q, dim=2) if log else F.softmax(q, dim=2)


class ImpalaActorCritic(nn.Module):
    """A policy and values over an episode: residual convolutions of frames, an LSTM that forgets where episodes end."""

    def __init__(self, num_actions: int = 6, channels: tuple[int, ...] = (16, 24), core: int = 32) -> None:
        super().__init__()
        self.num_actions = num_actions
        self.feat_convs, self.resnet1, self.resnet2 = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        input_channels = 3
        for num_ch in channels:
            self.feat_convs.append(
                nn.Sequential(
                    nn.Conv2d(input_channels, num_ch, kernel_size=3, stride=1, padding=1),
                    nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
                )
            )
            input_channels = num_ch
            for blocks in (self.resnet1, self.resnet2):
                resnet_block: list[nn.Module] = []
                for _ in range(2):
                    resnet_block += [nn.ReLU(), nn.Conv2d(num_ch, num_ch, kernel_size=3, stride=1, padding=1)]
                blocks.append(nn.Sequential(*resnet_block))
        self.fc = nn.Linear(input_channels * 36, 48)
        self.core = nn.LSTM(48 + num_actions + 1, core, num_layers=1)
        self.policy, self.baseline = nn.Linear(core, num_actions), nn.Linear(core, 1)

    def forward(self, frame: Tensor, last_action: Tensor, reward: Tensor, done: Tensor) -> dict[str, Tensor]:
        """Return scores of actions and values at every step: samples, steps."""
        B, T = frame.shape[:2]  # noqa: N806
        x = torch.flatten(frame, 0, 1)
        for i, fconv in enumerate(self.feat_convs):
            x = fconv(x)
            x = self.resnet1[i](x) + x
            x = self.resnet2[i](x) + x
        x = F.relu(self.fc(F.relu(x).reshape(B * T, -1)))
        one_hot = F.one_hot(last_action.reshape(B * T), self.num_actions).float()
        core_input = torch.cat([x, reward.clamp(-1, 1).reshape(B * T, 1), one_hot], dim=-1)
        core_input = core_input.view(B, T, -1).transpose(0, 1)
        notdone = (1 - done).float().transpose(0, 1)
        core_state = tuple(x.new_zeros(1, B, self.core.hidden_size) for _ in range(2))
        core_output_list = []
        for step, nd in zip(core_input.unbind(), notdone.unbind(), strict=True):
            core_state = tuple(nd.view(1, -1, 1) * s for s in core_state)
            output, core_state = self.core(step.unsqueeze(0), core_state)
            core_output_list.append(output)
        core_output = torch.cat(core_output_list).transpose(0, 1)
        return {"policy_logits": self.policy(core_output), "baseline": self.baseline(core_output).squeeze(-1)}


# --- points, sets and scenes ------------------------------------------------------------------------------------------


def knn(x: Tensor, k: int) -> Tensor:
    """Return every point's nearest points."""
    inner = -2 * torch.matmul(x.transpose(2, 1), x)
    xx = torch.sum(x**2, dim=1, keepdim=True)
    pairwise_distance = -xx - inner - xx.transpose(2, 1)
    return pairwise_distance.topk(k=k, dim=-1)[1]


def get_graph_feature(x: Tensor, k: int) -> Tensor:
    """Return every point's features beside its differences to the nearest points."""
    batch_size, num_dims, num_points = x.size()
    idx = knn(x, k=k)
    idx_base = torch.arange(0, batch_size, device=x.device).view(-1, 1, 1) * num_points
    idx = (idx + idx_base).view(-1)
    x = x.transpose(2, 1).contiguous()
    feature = x.view(batch_size * num_points, -1)[idx, :].view(batch_size, num_points, k, num_dims)
    x = x.view(batch_size, num_points, 1, num_dims).repeat(1, 1, k, 1)
    return torch.cat((feature - x, x), dim=3).permute(0, 3, 1, 2).contiguous()


class DGCNN(nn.Module):
    """Classifies clouds of points: convolutions over the edges to nearest points, which are found anew every layer."""

    def __init__(self, k: int = 5, emb_dims: int = 48, output_channels: int = 8) -> None:
        super().__init__()
        self.k = k
        self.bn1, self.bn2 = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
        self.bn3, self.bn4, self.bn5 = nn.BatchNorm2d(24), nn.BatchNorm2d(32), nn.BatchNorm1d(emb_dims)
        act = nn.LeakyReLU(negative_slope=0.2)
        self.conv1 = nn.Sequential(nn.Conv2d(6, 16, kernel_size=1, bias=False), self.bn1, act)
        self.conv2 = nn.Sequential(nn.Conv2d(16 * 2, 16, kernel_size=1, bias=False), self.bn2, act)
        self.conv3 = nn.Sequential(nn.Conv2d(16 * 2, 24, kernel_size=1, bias=False), self.bn3, act)
        self.conv4 = nn.Sequential(nn.Conv2d(24 * 2, 32, kernel_size=1, bias=False), self.bn4, act)
        self.conv5 = nn.Sequential(nn.Conv1d(88, emb_dims, kernel_size=1, bias=False), self.bn5, act)
        self.linear1, self.bn6 = nn.Linear(emb_dims * 2, 48, bias=False), nn.BatchNorm1d(48)
        self.dp1, self.linear2 = nn.Dropout(p=0.5), nn.Linear(48, 24)
        self.bn7, self.dp2, self.linear3 = nn.BatchNorm1d(24), nn.Dropout(p=0.5), nn.Linear(24, output_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores."""
        batch_size = x.size(0)
        x1 = self.conv1(get_graph_feature(x, k=self.k)).max(dim=-1, keepdim=False)[0]
        x2 = self.conv2(get_graph_feature(x1, k=self.k)).max(dim=-1, keepdim=False)[0]
        x3 = self.conv3(get_graph_feature(x2, k=self.k)).max(dim=-1, keepdim=False)[0]
        x4 = self.conv4(get_graph_feature(x3, k=self.k)).max(dim=-1, keepdim=False)[0]
        x = self.conv5(torch.cat((x1, x2, x3, x4), dim=1))
        x1 = F.adaptive_max_pool1d(x, 1).view(batch_size, -1)
        x2 = F.adaptive_avg_pool1d(x, 1).view(batch_size, -1)
        x = torch.cat((x1, x2), 1)
        x = F.leaky_relu(self.bn6(self.linear1(x)), negative_slope=0.2)
        x = F.leaky_relu(self.bn7(self.linear2(self.dp1(x))), negative_slope=0.2)
        scores: Tensor = self.linear3(self.dp2(x))
        return scores


class SetTransformer(nn.Module):
    """Attention over the elements of a set, through few learnt points, and over all into as many outputs as asked."""

    class MAB(nn.Module):
        """Attention of one set to another; heads are laid along the batch."""

        def __init__(self, dim_Q: int, dim_K: int, dim_V: int, num_heads: int, ln: bool = False) -> None:  # noqa: N803
            super().__init__()
            self.dim_V, self.num_heads = dim_V, num_heads
            self.fc_q, self.fc_k, self.fc_v = nn.Linear(dim_Q, dim_V), nn.Linear(dim_K, dim_V), nn.Linear(dim_K, dim_V)
            if ln:
                self.ln0 = nn.LayerNorm(dim_V)
                self.ln1 = nn.LayerNorm(dim_V)
            self.fc_o = nn.Linear(dim_V, dim_V)

        def forward(self, Q: Tensor, K: Tensor) -> Tensor:  # noqa: N803
            """Return what every element of the first reads of the second."""
            Q, K, V = self.fc_q(Q), self.fc_k(K), self.fc_v(K)  # noqa: N806
            dim_split = self.dim_V // self.num_heads
            Q_ = torch.cat(Q.split(dim_split, 2), 0)  # type: ignore[no-untyped-call]  # noqa: N806
            K_ = torch.cat(K.split(dim_split, 2), 0)  # type: ignore[no-untyped-call]  # noqa: N806
            V_ = torch.cat(V.split(dim_split, 2), 0)  # type: ignore[no-untyped-call]  # noqa: N806
            A = torch.softmax(Q_.bmm(K_.transpose(1, 2)) / math.sqrt(self.dim_V), 2)  # noqa: N806
            heads = (Q_ + A.bmm(V_)).split(Q.size(0), 0)  # type: ignore[no-untyped-call]
            O = torch.cat(heads, 2)  # noqa: N806, E741
            O = O if getattr(self, "ln0", None) is None else self.ln0(O)  # noqa: N806, E741
            O = O + F.relu(self.fc_o(O))  # noqa: N806, E741
            return O if getattr(self, "ln1", None) is None else self.ln1(O)

    class ISAB(nn.Module):
        """Attention to learnt points that attended to the set."""

        def __init__(self, dim_in: int, dim_out: int, num_heads: int, num_inds: int, ln: bool = False) -> None:
            super().__init__()
            self.I = nn.Parameter(torch.Tensor(1, num_inds, dim_out))
            nn.init.xavier_uniform_(self.I)
            self.mab0 = SetTransformer.MAB(dim_out, dim_in, dim_out, num_heads, ln=ln)
            self.mab1 = SetTransformer.MAB(dim_in, dim_out, dim_out, num_heads, ln=ln)

        def forward(self, X: Tensor) -> Tensor:  # noqa: N803
            """Return the set's new elements."""
            H = self.mab0(self.I.repeat(X.size(0), 1, 1), X)  # noqa: N806
            out: Tensor = self.mab1(X, H)
            return out

    def __init__(self, dim_input: int = 3, num_outputs: int = 4, dim_output: int = 5, dim_hidden: int = 32) -> None:
        super().__init__()
        num_heads, num_inds = 4, 6
        self.enc = nn.Sequential(
            self.ISAB(dim_input, dim_hidden, num_heads, num_inds, ln=True),
            self.ISAB(dim_hidden, dim_hidden, num_heads, num_inds, ln=True),
        )
        self.S = nn.Parameter(torch.Tensor(1, num_outputs, dim_hidden))
        nn.init.xavier_uniform_(self.S)
        self.pma = self.MAB(dim_hidden, dim_hidden, dim_hidden, num_heads, ln=True)
        self.sab = self.MAB(dim_hidden, dim_hidden, dim_hidden, num_heads, ln=True)
        self.dec = nn.Linear(dim_hidden, dim_output)

    def forward(self, X: Tensor) -> Tensor:  # noqa: N803
        """Return the outputs, such as the parameters of clusters."""
        encoded = self.enc(X)
        pooled = self.pma(self.S.repeat(X.size(0), 1, 1), encoded)
        out: Tensor = self.dec(self.sab(pooled, pooled))
        return out


class NeRF(nn.Module):
    """Colour and density at points seen from directions: a perceptron that reads its input once more half way."""

    def __init__(self, D: int = 5, W: int = 48, multires: int = 4, multires_views: int = 2) -> None:  # noqa: N803
        super().__init__()
        self.multires, self.multires_views, self.skips = multires, multires_views, [2]
        self.input_ch, self.input_ch_views = 3 + 6 * multires, 3 + 6 * multires_views
        self.pts_linears = nn.ModuleList(
            [nn.Linear(self.input_ch, W)]
            + [nn.Linear(W, W) if i not in self.skips else nn.Linear(W + self.input_ch, W) for i in range(D - 1)]
        )
        self.views_linears = nn.ModuleList([nn.Linear(self.input_ch_views + W, W // 2)])
        self.feature_linear, self.alpha_linear = nn.Linear(W, W), nn.Linear(W, 1)
        self.rgb_linear = nn.Linear(W // 2, 3)

    def embed(self, x: Tensor, multires: int) -> Tensor:
        """Return coordinates beside their sines and cosines."""
        out = [x]
        for freq in 2.0 ** torch.linspace(0.0, multires - 1, steps=multires, device=x.device):
            for p_fn in (torch.sin, torch.cos):
                out.append(p_fn(x * freq))
        return torch.cat(out, -1)

    def forward(self, pts: Tensor, viewdirs: Tensor) -> Tensor:
        """Return red, green, blue and density of the points of every ray."""
        dirs = viewdirs[:, None].expand(pts.shape)
        x = torch.cat([self.embed(pts, self.multires), self.embed(dirs, self.multires_views)], -1)
        input_pts, input_views = torch.split(x, [self.input_ch, self.input_ch_views], dim=-1)
        h = input_pts
        for i, _ in enumerate(self.pts_linears):
            h = F.relu(self.pts_linears[i](h))
            if i in self.skips:
                h = torch.cat([input_pts, h], -1)
        alpha = self.alpha_linear(h)
        h = torch.cat([self.feature_linear(h), input_views], -1)
        for layer in self.views_linears:
            h = F.relu(layer(h))
        return torch.cat([torch.sigmoid(self.rgb_linear(h)), F.relu(alpha)], -1)


# --- tables and series ------------------------------------------------------------------------------------------------


def sparsemax(z: Tensor) -> Tensor:
    """Return the point of the simplex that is nearest to the scores."""
    z = z - z.max(dim=-1, keepdim=True)[0]
    ordered = torch.sort(z, dim=-1, descending=True)[0]
    cumulative = ordered.cumsum(-1) - 1
    rho = torch.arange(1, z.size(-1) + 1, device=z.device, dtype=z.dtype)
    support_size = (rho * ordered > cumulative).sum(dim=-1, keepdim=True)
    tau = cumulative.gather(-1, support_size - 1) / support_size.to(z.dtype)
    return torch.clamp(z - tau, min=0)


class TabNet(nn.Module):
    """Decisions on tables in steps: each step's sparse mask says which of the features the step may read."""

    class GBN(nn.Module):
        """Batch norm of small parts of a batch."""

        def __init__(self, input_dim: int, virtual_batch_size: int = 128, momentum: float = 0.02) -> None:
            super().__init__()
            self.virtual_batch_size, self.bn = virtual_batch_size, nn.BatchNorm1d(input_dim, momentum=momentum)

        def forward(self, x: Tensor) -> Tensor:
            """Return the normalized features."""
            chunks = x.chunk(math.ceil(x.shape[0] / self.virtual_batch_size), 0)
            return torch.cat([self.bn(x_) for x_ in chunks], dim=0)

    class GLULayer(nn.Module):
        """A linear layer, which may be shared, a norm and a gate."""

        def __init__(self, input_dim: int, output_dim: int, fc: nn.Linear | None = None) -> None:
            super().__init__()
            self.output_dim = output_dim
            self.fc = fc if fc is not None else nn.Linear(input_dim, 2 * output_dim, bias=False)
            self.bn = TabNet.GBN(2 * output_dim)

        def forward(self, x: Tensor) -> Tensor:
            """Return the gated half."""
            x = self.bn(self.fc(x))
            return torch.mul(x[:, : self.output_dim], torch.sigmoid(x[:, self.output_dim :]))

    class FeatTransformer(nn.Module):
        """Gated layers, the first of them shared by all steps, with scaled shortcuts."""

        def __init__(self, input_dim: int, output_dim: int, shared: nn.ModuleList, n_independent: int = 1) -> None:
            super().__init__()
            self.layers = nn.ModuleList([TabNet.GLULayer(input_dim, output_dim, fc=fc) for fc in shared])  # type: ignore[arg-type]
            for _ in range(n_independent):
                self.layers.append(TabNet.GLULayer(output_dim, output_dim))

        def forward(self, x: Tensor) -> Tensor:
            """Return the new features."""
            scale = torch.sqrt(torch.FloatTensor([0.5]).to(x.device))
            x = self.layers[0](x)
            for layer in self.layers[1:]:
                x = torch.add(x, layer(x)) * scale
            return x

    def __init__(self, numbers: int = 6, cat_dims: tuple[int, ...] = (10, 4), n_d: int = 16, n_a: int = 16) -> None:
        super().__init__()
        self.n_d, self.n_a, n_steps, self.gamma, n_shared = n_d, n_a, 3, 1.3, 2
        self.embeddings = nn.ModuleList([nn.Embedding(cat_dim, 3) for cat_dim in cat_dims])
        input_dim = numbers + 3 * len(cat_dims)
        self.initial_bn = nn.BatchNorm1d(input_dim, momentum=0.01)
        shared = nn.ModuleList(
            [nn.Linear(input_dim if i == 0 else n_d + n_a, 2 * (n_d + n_a), bias=False) for i in range(n_shared)]
        )
        self.initial_splitter = self.FeatTransformer(input_dim, n_d + n_a, shared)
        self.feat_transformers, self.att_transformers = nn.ModuleList(), nn.ModuleList()
        for _ in range(n_steps):
            self.feat_transformers.append(self.FeatTransformer(input_dim, n_d + n_a, shared))
            self.att_transformers.append(nn.Sequential(nn.Linear(n_a, input_dim, bias=False), self.GBN(input_dim)))
        self.final_mapping = nn.Linear(n_d, 3, bias=False)

    def forward(self, x: Tensor, categories: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores, and how spread the masks are."""
        x = torch.cat([x, *(emb(categories[:, i]) for i, emb in enumerate(self.embeddings))], dim=1)
        x = self.initial_bn(x)
        prior, m_loss, out = torch.ones_like(x), x.new_zeros(()), x.new_zeros(x.size(0), self.n_d)
        att = self.initial_splitter(x)[:, self.n_d :]
        for feat_transformer, att_transformer in zip(self.feat_transformers, self.att_transformers, strict=True):
            mask = sparsemax(torch.mul(att_transformer(att), prior))
            m_loss = m_loss + torch.mean(torch.sum(torch.mul(mask, torch.log(mask + 1e-15)), dim=1))
            prior = torch.mul(self.gamma - mask, prior)
            transformed = feat_transformer(torch.mul(mask, x))
            out = out + F.relu(transformed[:, : self.n_d])
            att = transformed[:, self.n_d :]
        return self.final_mapping(out), m_loss / len(self.feat_transformers)


class ECGNet(nn.Module):
    """Diagnoses of electrocardiograms: residual blocks with squeeze-and-excitation, joined with age and sex."""

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    class BasicBlock1d(nn.Module):
        """Two long convolutions, weights of channels, and a shortcut."""

        def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
            super().__init__()
            self.conv1 = nn.Conv1d(inplanes, planes, kernel_size=7, stride=stride, padding=3, bias=False)
            self.bn1, self.relu = nn.BatchNorm1d(planes), nn.ReLU(inplace=True)
            self.dropout = nn.Dropout(0.2)
            self.conv2 = nn.Conv1d(planes, planes, kernel_size=7, stride=1, padding=3, bias=False)
            self.bn2 = nn.BatchNorm1d(planes)
            self.squeeze, self.downsample = nn.AdaptiveAvgPool1d(1), downsample
            self.fc1, self.fc2 = nn.Conv1d(planes, planes // 4, 1), nn.Conv1d(planes // 4, planes, 1)

        def forward(self, x: Tensor) -> Tensor:
            """Return the sum."""
            residual = x
            out = self.relu(self.bn1(self.conv1(x)))
            out = self.bn2(self.conv2(self.dropout(out)))
            w = torch.sigmoid(self.fc2(F.relu(self.fc1(self.squeeze(out)))))
            out = out * w
            if self.downsample is not None:
                residual = self.downsample(x)
            out += residual
            new: Tensor = self.relu(out)
            return new

    def __init__(self, layers: tuple[int, ...] = (1, 2, 1), num_classes: int = 9) -> None:
        super().__init__()
        self.inplanes = 16
        self.conv1, self.bn1 = nn.Conv1d(12, 16, kernel_size=15, stride=2, padding=7, bias=False), nn.BatchNorm1d(16)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool1d(kernel_size=3, stride=2, padding=1)
        for i, (planes, blocks) in enumerate(zip((16, 32, 48), layers, strict=True), start=1):
            setattr(self, f"layer{i}", self._make_layer(planes, blocks, stride=1 if i == 1 else 2))
        self.avgpool, self.maxpool2 = nn.AdaptiveAvgPool1d(1), nn.AdaptiveMaxPool1d(1)
        self.fc_demo, self.fc = nn.Linear(2, 10), nn.Linear(48 * 2 + 10, num_classes)

    def _make_layer(self, planes: int, blocks: int, stride: int) -> nn.Sequential:
        downsample = None
        if stride != 1 or self.inplanes != planes:
            downsample = nn.Sequential(
                nn.Conv1d(self.inplanes, planes, kernel_size=1, stride=stride, bias=False), nn.BatchNorm1d(planes)
            )
        layers = [self.BasicBlock1d(self.inplanes, planes, stride, downsample)]
        self.inplanes = planes
        layers += [self.BasicBlock1d(planes, planes) for _ in range(1, blocks)]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor, ag: Tensor) -> Tensor:
        """Return probabilities of every diagnosis."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = torch.cat((self.avgpool(x), self.maxpool2(x)), dim=1).view(x.size(0), -1)
        x = torch.cat((x, F.relu(self.fc_demo(ag))), dim=1)
        return torch.sigmoid(self.fc(x))


class GRUD(nn.Module):
    """A series with holes: what was last seen decays to the mean, and the state decays, as time goes by (GRU-D)."""

    X_mean: Tensor

    class FilterLinear(nn.Module):
        """A linear layer of which only the diagonal counts."""

        filter_square_matrix: Tensor

        def __init__(self, features: int) -> None:
            super().__init__()
            self.register_buffer("filter_square_matrix", torch.eye(features))
            stdv = 1.0 / math.sqrt(features)
            self.weight = nn.Parameter(torch.empty(features, features).uniform_(-stdv, stdv))
            self.bias = nn.Parameter(torch.empty(features).uniform_(-stdv, stdv))

        def forward(self, x: Tensor) -> Tensor:
            """Return the scaled features."""
            return F.linear(x, self.filter_square_matrix * self.weight, self.bias)

    def __init__(self, input_size: int = 8, hidden_size: int = 32, output_size: int = 4) -> None:
        super().__init__()
        self.hidden_size, self.delta_size, self.mask_size = hidden_size, input_size, input_size
        self.register_buffer("X_mean", torch.zeros(input_size))
        joined = input_size + hidden_size + self.mask_size
        self.zl, self.rl, self.hl = (nn.Linear(joined, hidden_size) for _ in range(3))
        self.gamma_x_l = self.FilterLinear(self.delta_size)
        self.gamma_h_l = nn.Linear(self.delta_size, hidden_size)
        self.bn, self.dropout = nn.BatchNorm1d(hidden_size), nn.Dropout(0.3)
        self.fc = nn.Linear(hidden_size, output_size)

    def step(self, x: Tensor, x_last_obsv: Tensor, h: Tensor, mask: Tensor, delta: Tensor) -> Tensor:
        """Return the state after one step."""
        delta_x = torch.exp(-torch.clamp(self.gamma_x_l(delta), min=0))
        delta_h = torch.exp(-torch.clamp(self.gamma_h_l(delta), min=0))
        x = mask * x + (1 - mask) * (delta_x * x_last_obsv + (1 - delta_x) * self.X_mean)
        h = delta_h * h
        combined = torch.cat((x, h, mask), 1)
        z, r = torch.sigmoid(self.zl(combined)), torch.sigmoid(self.rl(combined))
        h_tilde = torch.tanh(self.hl(torch.cat((x, r * h, mask), 1)))
        return (1 - z) * h + z * h_tilde

    def forward(self, inputs: Tensor) -> Tensor:
        """Return scores of a series: values, last values, whether seen and times since then, stacked."""
        X, X_last_obsv = inputs[:, 0], inputs[:, 1]  # noqa: N806
        Mask, Delta = (inputs[:, 2] > 0).to(inputs.dtype), inputs[:, 3].abs()  # noqa: N806
        hidden_state = inputs.new_zeros(inputs.size(0), self.hidden_size)
        for i in range(inputs.size(2)):
            hidden_state = self.step(X[:, i], X_last_obsv[:, i], hidden_state, Mask[:, i], Delta[:, i])
        scores: Tensor = self.fc(self.dropout(self.bn(hidden_state)))
        return scores


# --- text -------------------------------------------------------------------------------------------------------------


class CharAwareLM(nn.Module):
    """Predicts words of which it reads the characters: convolutions, highway layers and an LSTM (Kim et al.)."""

    def __init__(self, chars: int = 40, words: int = 80, char_emb_dim: int = 12, hidden: int = 32) -> None:
        super().__init__()
        self.char_embed = nn.Embedding(chars, char_emb_dim)
        self.convolutions, filters = [], [(1, 8), (2, 16), (3, 24)]
        for width, out_channel in filters:
            self.convolutions.append(nn.Conv2d(1, out_channel, kernel_size=(char_emb_dim, width), bias=True))
        self.conv = nn.ModuleList(self.convolutions)
        self.highway_input_dim = sum(out_channel for _, out_channel in filters)
        self.batch_norm = nn.BatchNorm1d(self.highway_input_dim, affine=False)
        self.highway1 = Highway(self.highway_input_dim, self.highway_input_dim)
        self.highway2 = Highway(self.highway_input_dim, self.highway_input_dim)
        self.lstm = nn.LSTM(self.highway_input_dim, hidden, num_layers=2, dropout=0.5, batch_first=True)
        self.dropout, self.linear = nn.Dropout(p=0.5), nn.Linear(hidden, words)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of the word after each: samples, words, characters."""
        lstm_batch_size, lstm_seq_len = x.size()[:2]
        x = x.contiguous().view(-1, x.size(2))
        x = self.char_embed(x)
        x = torch.transpose(x.view(x.size(0), 1, x.size(1), -1), 2, 3)
        chosen = []
        for conv in self.convolutions:
            feature_map = torch.tanh(conv(x))
            chosen.append(torch.max(feature_map, 3)[0].squeeze(2))
        x = self.batch_norm(torch.cat(chosen, 1))
        x = self.highway2(self.highway1(x))
        x = x.view(lstm_batch_size, lstm_seq_len, -1)
        x, _ = self.lstm(x)
        x = self.dropout(x)
        scores: Tensor = self.linear(x.contiguous().view(lstm_batch_size * lstm_seq_len, -1))
        return scores.view(lstm_batch_size, lstm_seq_len, -1)


def clones(module: nn.Module, N: int) -> nn.ModuleList:  # noqa: N803
    """Return copies of a module."""
    return nn.ModuleList([copy.deepcopy(module) for _ in range(N)])


class AnnotatedTransformer(nn.Module):
    """Translates, as the annotated transformer does: copies of layers, sublayers as closures, a norm of its own."""

    class LayerNorm(nn.Module):
        """A layer norm that divides by the unbiased deviation."""

        def __init__(self, features: int, eps: float = 1e-6) -> None:
            super().__init__()
            self.a_2, self.b_2 = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))
            self.eps = eps

        def forward(self, x: Tensor) -> Tensor:
            """Return the normalized features."""
            mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
            return self.a_2 * (x - mean) / (std + self.eps) + self.b_2

    class SublayerConnection(nn.Module):
        """A norm before, dropout after, and a shortcut around a sublayer."""

        def __init__(self, size: int, dropout: float) -> None:
            super().__init__()
            self.norm, self.dropout = AnnotatedTransformer.LayerNorm(size), nn.Dropout(dropout)

        def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
            """Return the sum."""
            out: Tensor = x + self.dropout(sublayer(self.norm(x)))
            return out

    class MultiHeadedAttention(nn.Module):
        """Attention whose four linear layers are a list."""

        def __init__(self, h: int, d_model: int, dropout: float = 0.1) -> None:
            super().__init__()
            assert d_model % h == 0
            self.d_k, self.h = d_model // h, h
            self.linears, self.dropout = clones(nn.Linear(d_model, d_model), 4), nn.Dropout(p=dropout)

        def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
            """Return what every query reads."""
            mask, nbatches = mask.unsqueeze(1), query.size(0)
            query, key, value = [
                lin(x).view(nbatches, -1, self.h, self.d_k).transpose(1, 2)
                for lin, x in zip(self.linears, (query, key, value), strict=False)
            ]
            scores = torch.matmul(query, key.transpose(-2, -1)) / math.sqrt(self.d_k)
            p_attn = self.dropout(scores.masked_fill(mask == 0, -1e9).softmax(dim=-1))
            x = torch.matmul(p_attn, value).transpose(1, 2).contiguous().view(nbatches, -1, self.h * self.d_k)
            out: Tensor = self.linears[-1](x)
            return out

    class EncoderLayer(nn.Module):
        """Attention to oneself and a perceptron."""

        def __init__(self, size: int, self_attn: nn.Module, feed_forward: nn.Module, dropout: float) -> None:
            super().__init__()
            self.self_attn, self.feed_forward = self_attn, feed_forward
            self.sublayer = clones(AnnotatedTransformer.SublayerConnection(size, dropout), 2)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            """Return the new tokens."""
            x = self.sublayer[0](x, lambda x: self.self_attn(x, x, x, mask))
            out: Tensor = self.sublayer[1](x, self.feed_forward)
            return out

    class DecoderLayer(nn.Module):
        """Attention to oneself and to the source, and a perceptron."""

        def __init__(
            self, size: int, self_attn: nn.Module, src_attn: nn.Module, feed_forward: nn.Module, dropout: float
        ) -> None:
            super().__init__()
            self.self_attn, self.src_attn, self.feed_forward = self_attn, src_attn, feed_forward
            self.sublayer = clones(AnnotatedTransformer.SublayerConnection(size, dropout), 3)

        def forward(self, x: Tensor, memory: Tensor, src_mask: Tensor, tgt_mask: Tensor) -> Tensor:
            """Return the new tokens."""
            m = memory
            x = self.sublayer[0](x, lambda x: self.self_attn(x, x, x, tgt_mask))
            x = self.sublayer[1](x, lambda x: self.src_attn(x, m, m, src_mask))
            out: Tensor = self.sublayer[2](x, self.feed_forward)
            return out

    pe: Tensor

    def __init__(self, vocab: int = 60, N: int = 2, d_model: int = 32, d_ff: int = 64, h: int = 4) -> None:  # noqa: N803
        super().__init__()
        c, self.d_model, dropout = copy.deepcopy, d_model, 0.1
        attn = self.MultiHeadedAttention(h, d_model)
        ff = nn.Sequential(nn.Linear(d_model, d_ff), nn.ReLU(), nn.Dropout(dropout), nn.Linear(d_ff, d_model))
        self.encoder = clones(self.EncoderLayer(d_model, c(attn), c(ff), dropout), N)
        self.decoder = clones(self.DecoderLayer(d_model, c(attn), c(attn), c(ff), dropout), N)
        self.encoder_norm, self.decoder_norm = self.LayerNorm(d_model), self.LayerNorm(d_model)
        self.src_embed, self.tgt_embed = nn.Embedding(vocab, d_model), nn.Embedding(vocab, d_model)
        self.dropout, self.proj = nn.Dropout(dropout), nn.Linear(d_model, vocab)
        pe, position = torch.zeros(50, d_model), torch.arange(0, 50).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d_model, 2) * -(math.log(10000.0) / d_model))
        pe[:, 0::2], pe[:, 1::2] = torch.sin(position * div_term), torch.cos(position * div_term)
        self.register_buffer("pe", pe.unsqueeze(0))
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)

    def embed(self, x: Tensor, table: nn.Module) -> Tensor:
        """Return the words' and positions' features."""
        x = table(x) * math.sqrt(self.d_model)
        out: Tensor = self.dropout(x + self.pe[:, : x.size(1)].requires_grad_(False))
        return out

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        """Return log-probabilities of the next words."""
        src_mask = (src != 0).unsqueeze(-2)
        subsequent = torch.triu(torch.ones(1, tgt.size(1), tgt.size(1), device=tgt.device), diagonal=1) == 0
        tgt_mask = (tgt != 0).unsqueeze(-2) & subsequent
        memory = self.embed(src, self.src_embed)
        for layer in self.encoder:
            memory = layer(memory, src_mask)
        memory, x = self.encoder_norm(memory), self.embed(tgt, self.tgt_embed)
        for layer in self.decoder:
            x = layer(x, memory, src_mask, tgt_mask)
        return F.log_softmax(self.proj(self.decoder_norm(x)), dim=-1)


class PaLM(nn.Sequential):
    """A language model with attention and perceptron side by side, both out of one product; heads share their keys."""

    class RMSNorm(nn.Module):
        """A norm without a mean."""

        def __init__(self, dim: int, eps: float = 1e-8) -> None:
            super().__init__()
            self.scale, self.eps, self.g = dim**-0.5, eps, nn.Parameter(torch.ones(dim))

        def forward(self, x: Tensor) -> Tensor:
            """Return the normalized features."""
            norm: Tensor = torch.norm(x, dim=-1, keepdim=True) * self.scale
            return x / norm.clamp(min=self.eps) * self.g

    class ParallelTransformerBlock(nn.Module):
        """Both parts of a layer; positions rotate queries and keys."""

        inv_freq: Tensor

        def __init__(self, dim: int, dim_head: int = 16, heads: int = 4, ff_mult: int = 2) -> None:
            super().__init__()
            self.norm = PaLM.RMSNorm(dim)
            attn_inner_dim, ff_inner_dim = dim_head * heads, dim * ff_mult
            self.fused_dims = (attn_inner_dim, dim_head, dim_head, (ff_inner_dim * 2))
            self.heads, self.scale = heads, dim_head**-0.5
            self.register_buffer("inv_freq", 1.0 / (10000 ** (torch.arange(0, dim_head, 2).float() / dim_head)))
            self.fused_attn_ff_proj = nn.Linear(dim, sum(self.fused_dims), bias=False)
            self.attn_out = nn.Linear(attn_inner_dim, dim, bias=False)
            self.ff_out = nn.Linear(ff_inner_dim, dim, bias=False)

        def rotate(self, t: Tensor, positions: Tensor) -> Tensor:
            """Return the features turned by their positions' angles."""
            x = rearrange(t, "... (j d) -> ... j d", j=2)
            x1, x2 = x.unbind(dim=-2)
            return (t * positions.cos()) + (torch.cat((-x2, x1), dim=-1) * positions.sin())

        def forward(self, x: Tensor) -> Tensor:
            """Return the sum of both parts."""
            n, device, h = x.shape[1], x.device, self.heads
            x = self.norm(x)
            q, k, v, ff = self.fused_attn_ff_proj(x).split(self.fused_dims, dim=-1)
            q = rearrange(q, "b n (h d) -> b h n d", h=h)
            freqs = einsum("i , j -> i j", torch.arange(n, device=device).float(), self.inv_freq)
            positions = torch.cat((freqs, freqs), dim=-1)
            q, k = map(lambda t: self.rotate(t, positions), (q, k))  # noqa: C417
            q = q * self.scale
            sim = einsum("b h i d, b j d -> b h i j", q, k)
            causal_mask = torch.ones((n, n), device=device, dtype=torch.bool).triu(1)
            sim = sim.masked_fill(causal_mask, -torch.finfo(sim.dtype).max)
            attn = sim.softmax(dim=-1)
            out = rearrange(einsum("b h i j, b j d -> b h i d", attn, v), "b h n d -> b n (h d)")
            ff, gate = ff.chunk(2, dim=-1)
            both: Tensor = self.attn_out(out) + self.ff_out(F.silu(gate) * ff)
            return both

    def __init__(self, dim: int = 48, num_tokens: int = 90, depth: int = 3) -> None:
        super().__init__(
            nn.Embedding(num_tokens, dim),
            *[Residual(self.ParallelTransformerBlock(dim)) for _ in range(depth)],
            self.RMSNorm(dim),
            nn.Linear(dim, num_tokens, bias=False),
        )
        self[-1].weight = self[0].weight
        nn.init.normal_(self[0].weight, std=0.02)  # type: ignore[arg-type]


class EinsumEncoder(nn.Module):
    """Classifies sequences: every weight of a layer is a parameter with an axis for heads, every product an einsum."""

    class Layer(nn.Module):
        """Attention with a learnt bias for every distance, and a gated perceptron, after norms."""

        def __init__(self, d: int, heads: int, k: int, hidden: int, reach: int = 8) -> None:
            super().__init__()
            self.reach = reach
            self.query, self.key = nn.Parameter(torch.empty(d, heads, k)), nn.Parameter(torch.empty(d, heads, k))
            self.value, self.out = nn.Parameter(torch.empty(d, heads, k)), nn.Parameter(torch.empty(heads, k, d))
            self.distance = nn.Parameter(torch.zeros(heads, 2 * reach + 1))
            self.w_in, self.w_out = nn.Parameter(torch.empty(2, d, hidden)), nn.Parameter(torch.empty(hidden, d))
            self.b_in, self.b_out = nn.Parameter(torch.zeros(2, hidden)), nn.Parameter(torch.zeros(d))
            self.norm_attention, self.norm_mlp = nn.LayerNorm(d), nn.LayerNorm(d)
            for weight in (self.query, self.key, self.value, self.out, self.w_in, self.w_out):
                nn.init.normal_(weight, std=d**-0.5)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            """Return the new tokens."""
            y = self.norm_attention(x)
            q, k, v = (torch.einsum("bnd,dhk->bhnk", y, w) for w in (self.query, self.key, self.value))
            places = torch.arange(x.shape[1], device=x.device)
            offset = (places[:, None] - places[None, :]).clamp(-self.reach, self.reach) + self.reach
            logits = torch.einsum("bhnk,bhmk->bhnm", q, k) / q.shape[-1] ** 0.5 + self.distance[:, offset]
            weights = logits.masked_fill(~mask[:, None, None, :], -1e9).softmax(-1)
            x = x + torch.einsum("bhnm,bhmk,hkd->bnd", weights, v, self.out)
            gate, up = torch.einsum("bnd,gdf->gbnf", self.norm_mlp(x), self.w_in) + self.b_in[:, None, None]
            return x + torch.einsum("bnf,fd->bnd", F.gelu(gate) * up, self.w_out) + self.b_out

    def __init__(self, vocab: int = 30, d: int = 32, heads: int = 4, depth: int = 3, classes: int = 6) -> None:
        super().__init__()
        self.embedding, self.cls = nn.Embedding(vocab, d, padding_idx=0), nn.Parameter(torch.randn(d) * 0.02)
        self.layers = nn.ModuleList(self.Layer(d, heads, d // heads, 3 * d // 2) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores."""
        cls = repeat(self.cls, "d -> b 1 d", b=tokens.shape[0])
        x = torch.cat([cls, self.embedding(tokens)], dim=1)
        mask = F.pad(tokens != 0, (1, 0), value=True)
        for layer in self.layers:
            x = layer(x, mask)
        scores: Tensor = self.head(self.norm(x[:, 0]))
        return scores
