"""DS2TA in PyTorch: to train, to export, and to compare a simulation with.

"DS2TA: Denoising Spiking Transformer with Attenuated Spatiotemporal Attention" (2024), arXiv 2409.15375. It is
Spikformer V1 with two changes in the attention. TASA: the currents of the neurons that make q, k and v, and of those
behind the output projection, come from the spikes of a window of time steps, attenuated by powers of two. NSAD: each
entry of the map ``q k^T``, a small integer, is replaced by an integer from a table of its head.

No code was published, and the available text lost its equations; what it leaves open is a field of `Reading`. Read as
well: bias and normalisation act once, on the sum over the window; the linear part of NSAD's function has an offset
``c1`` and its sigmoid a slope ``k3``; halves are rounded to even.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from spikformer import SSA, SYNAPSES_AND_NEURONS, Spikformer, Variant
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor, nn

LEAST_THRESHOLD = 0.5
"""NSAD never lets a score of 0 pass: silence stays silence."""


@dataclass(frozen=True)
class Reading:
    """What the paper leaves open, or leaves to choose; the numbers are those of its DVS models.

    Attributes
    ----------
    window : int
        TASA: time steps that a spike is felt; 1 is V1.
    exponent : int
        TASA: where the learned integers d begin.
    tasa_decay : {"geometric", "constant"}
        Whether a spike of m steps ago counts ``2^(-d m)``, or every earlier one ``2^-d``.
    tasa_on_proj : bool
        Whether the "final output of each attention block" is that of the output projection, or is left as in V1.
    threshold : float
        NSAD: where the denoising thresholds u begin.
    threshold_inclusive : bool
        NSAD: whether a score equal to the threshold is noise.
    learned_tau : bool
        Whether each layer of neurons learns its time constant, as in the authors' earlier DISTA; else it is 2.
    """

    window: int = 3
    exponent: int = 2
    tasa_decay: str = "geometric"
    tasa_on_proj: bool = True
    threshold: float = 2.0
    threshold_inclusive: bool = False
    learned_tau: bool = False

    def __post_init__(self) -> None:
        if self.window < 1 or self.exponent < 0:
            raise ValueError(f"window {self.window}, exponent {self.exponent} found; expected at least 1 and 0")
        if self.tasa_decay not in ("geometric", "constant"):
            raise ValueError(f"tasa_decay {self.tasa_decay!r} found; expected 'geometric' or 'constant'")


def straight_through(exact: Tensor, smooth: Tensor) -> Tensor:
    """Return `exact` with the gradient of `smooth`."""
    return smooth + (exact - smooth).detach()


class Deployed(nn.Module):
    """A module that trains real numbers (parameters) and computes with integers made of them (buffers).

    The buffers follow the parameters whenever training gives way to evaluation, and whenever the state dict is taken.
    """

    def deploy(self) -> None:
        """Write the buffers."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Deployed:
        if self.training and not mode:
            self.deploy()
        return super().train(mode)

    def _save_to_state_dict(self, *args: Any) -> None:
        if self.training:
            self.deploy()
        super()._save_to_state_dict(*args)


class TASA(Deployed):
    """Temporally attenuated spikes: the sum over m < taw of ``2^(-d m) s[t - m]``.

    Filtering the spikes before the synapses is filtering the currents behind them: the map between is linear.
    """

    def __init__(self, reading: Reading) -> None:
        super().__init__()
        self.decay = reading.tasa_decay
        self.exponent = nn.Parameter(torch.tensor(float(reading.exponent)))
        self.register_buffer("d", torch.tensor(reading.exponent))
        self.register_buffer("taw", torch.tensor(reading.window))

    @torch.no_grad()
    def deploy(self) -> None:
        self.d.copy_(self.exponent.clamp(min=0).round())

    def forward(self, spikes: Tensor) -> Tensor:
        d = self.d
        if self.training:
            smooth = self.exponent.clamp(min=0)
            d = straight_through(smooth.round(), smooth)
        total = spikes
        for m in range(1, min(int(self.taw), len(spikes))):
            factor = torch.exp2(-d * (m if self.decay == "geometric" else 1))
            total = total + torch.cat([torch.zeros_like(spikes[:m]), factor * spikes[:-m]])
        return total


class NSAD(Deployed):
    """Nonlinear spiking attention denoiser: ``table[head, score]`` for the scores of ``[..., heads, N, N]``.

    The table holds the integers nearest to ``f(a) = a1 a + c1 + a2 (a - b2)^2 + a3 sigmoid(k3 (a - b3))``, and 0 where
    a is below the threshold u. Every head has its own eight numbers, and f begins as the identity. Training rounds as
    well, and takes the gradient of f; that of u is a surrogate.
    """

    def __init__(self, heads: int, head_width: int, reading: Reading) -> None:
        super().__init__()
        self.threshold_inclusive = reading.threshold_inclusive
        u = reading.threshold
        beginnings = {"u": u, "a1": 1.0, "c1": 0.0, "a2": 0.0, "b2": 0.0, "a3": 0.0, "k3": 1.0, "b3": u}
        for name, value in beginnings.items():
            self.register_parameter(name, nn.Parameter(torch.full((heads,), value)))
        self.register_buffer("table", torch.zeros(heads, head_width + 1, dtype=torch.int64))
        self.passes = surrogate.ATan()  # 1 where its argument is at least 0
        self.deploy()

    def f(self, score: Tensor, p: Mapping[str, Tensor]) -> Tensor:
        """Return f of scores ``[..., heads, N, N]``, for parameters ``[heads]``."""
        u, a1, c1, a2, b2, a3, k3, b3 = (
            p[name].view(-1, 1, 1) for name in ("u", "a1", "c1", "a2", "b2", "a3", "k3", "b3")
        )
        g = a1 * score + c1 + a2 * (score - b2) ** 2 + a3 * torch.sigmoid(k3 * (score - b3))
        u = u.clamp(min=LEAST_THRESHOLD)
        return g * (1 - self.passes(u - score) if self.threshold_inclusive else self.passes(score - u))

    @torch.no_grad()
    def deploy(self) -> None:
        self.u.clamp_(min=LEAST_THRESHOLD)
        scores = torch.arange(self.table.shape[1], dtype=torch.float64, device=self.table.device)
        values = self.f(scores.view(1, 1, -1), {name: value.double() for name, value in self.named_parameters()})
        self.table.copy_(values.squeeze(1).round())

    def forward(self, score: Tensor) -> Tensor:
        if self.training:
            smooth = self.f(score, dict(self.named_parameters()))
            return straight_through(smooth.round(), smooth)
        head = torch.arange(len(self.table), device=score.device).view(-1, 1, 1)
        return self.table[head, score.long()].to(score.dtype)


class DenoisedAttention(SSA):
    """Spiking self-attention of V1 with TASA before the synapses of its stages, and NSAD on ``q k^T``."""

    def __init__(self, width: int, heads: int, variant: Variant, reading: Reading) -> None:
        super().__init__(width, heads, variant)
        stages = ("q", "k", "v", "proj") if reading.tasa_on_proj else ("q", "k", "v")
        self.tasa = nn.ModuleDict({name: TASA(reading) for name in stages})
        self.nsad = NSAD(heads, width // heads, reading)

    def stage(self, name: str, x: Tensor) -> Tensor:
        return super().stage(name, self.tasa[name](x) if name in self.tasa else x)

    def forward(self, x: Tensor) -> Tensor:
        # [T, B, width, N] -> [T, B, heads, N, width / heads]
        q, k, v = (self.stage(name, x).unflatten(2, (self.heads, -1)).transpose(3, 4) for name in ("q", "k", "v"))
        y = self.nsad(q @ k.transpose(3, 4)) @ v * self.scale
        return self.stage("proj", self.attn_lif(y.transpose(3, 4).flatten(2, 3)))


class DS2TA(Spikformer):
    """Spikformer V1 with DS2TA's attention; takes what `Spikformer` takes, and a `Reading`."""

    def __init__(self, variant: str, *, reading: Reading = Reading(), **spikformer: Any) -> None:
        super().__init__(variant, **spikformer)
        self.reading = reading
        for block in self.block:
            block.attn = DenoisedAttention(self.head.in_features, self.heads, self.variant, reading)
        if reading.learned_tau:
            self.apply(_learn_tau)


def _learn_tau(module: nn.Module) -> None:
    """Replace the neurons that a module holds by those that learn their time constant."""
    for name, child in module.named_children():
        if isinstance(child, neuron.LIFNode):
            learning = neuron.ParametricLIFNode(
                v_threshold=child.v_threshold, detach_reset=True, surrogate_function=surrogate.ATan(), step_mode="m"
            )
            setattr(module, name, learning)


def nmnist_model() -> DS2TA:
    """Return the small model that is trained on N-MNIST: 34 x 34 pixels, 9 tokens, 2 blocks."""
    return DS2TA("dvs", width=64, depth=2, heads=4, classes=10, in_channels=2, size=34, time_steps=5)


def metadata(model: DS2TA) -> dict[str, str]:
    """Return what the state dict cannot tell, under the names of the importer's options."""
    height, width = model.size
    values = {
        **SYNAPSES_AND_NEURONS,
        "residual_op": "add",
        "pools": "".join("1" if used else "0" for used in model.variant.pools),
        "pool_order": "after_fire",
        "scale": model.variant.scale,
        "tasa_decay": model.reading.tasa_decay,
        "threshold_inclusive": model.reading.threshold_inclusive,
        "time_steps": model.time_steps,
        "height": height,
        "width": width,
        "input_kind": "graded" if model.in_channels == 2 else "real",
    }
    return {name: str(value) for name, value in values.items()}
