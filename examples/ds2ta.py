"""DS2TA in PyTorch: to train, to export, and to compare a simulation with.

"DS2TA: Denoising Spiking Transformer with Attenuated Spatiotemporal Attention" (2024), arXiv 2409.15375. It is
Spikformer V1 with two changes in the attention. TASA: the currents of the neurons that make q, k and v, and of those
that make the output of the attention, come from the spikes of a window of time steps, attenuated by powers of two.
NSAD: each entry of the map ``q k^T``, a small integer, is replaced by an integer from a table of its head.

No code was published, and the available text lost its equations; what it leaves open is a field of `Reading`, and
docs/papers/ds2ta.md goes through it sentence by sentence. Read as well: bias and normalisation act once, on the sum
over the window; the linear part of NSAD's function has an offset ``c1`` and its sigmoid a slope ``k3``; halves are
rounded to even.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from spikformer import SSA, SYNAPSES_AND_NEURONS, Spikformer, Variant, each_step
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor, nn

LEAST_THRESHOLD = 0.5
"""NSAD never lets a score of 0 pass: silence stays silence."""


@dataclass(frozen=True)
class Reading:
    """What the paper leaves open, or leaves to choose; the numbers are those of its DVS models.

    Attributes
    ----------
    nsad, tasa : bool
        Whether the attention has its tables, and its windows. Table 4 has models with NSAD alone and with both; TASA
        alone is the row that it leaves out.
    window, exponent : int or tuple of int
        TASA: time steps that a spike is felt, where 1 is V1, and where the learned integers d begin. Tuples have one
        for each head: of the neurons that make q, k and v, and of those that the product of map and v feeds. The
        projection of the output adds up all heads and cannot have them. Section 4.2 sets a window "for all 16 heads",
        4.1 one "for all neurons"; d is said to be "layer-wise".
    tasa_decay : {"geometric", "constant"}
        Eq. 5. Whether a spike of m steps ago counts ``2^(-d m)``, or every earlier one ``2^-d``.
    tasa_output : {"proj", "values", "product", "none"}
        What makes the "final output of each attention block" (section 3.1): the projection of the output; the product
        of the map of now with the attenuated spikes of v, ``map[t] sum_m a_m v[t - m]``, where the map is the weight of
        eq. 1; the currents of that product, ``sum_m a_m map[t - m] v[t - m]``; or nothing that has a window.
    threshold : float
        NSAD: where the denoising thresholds u begin.
    threshold_inclusive : bool
        Eq. 6. Whether a score equal to the threshold is noise.
    table_scores : {"0..d", "1..d", "0..d-1"}
        Section 3.2.2. Which scores have an entry, with d channels in a head. A score of 0 without one stays 0, and d
        without one takes the last.
    decay_input, reset
        Eqs. 2 and 3, which are lost: whether a neuron's input decays as its potential does, and whether the potential
        falls to "zero" or by "subtract"ion of the threshold.
    learned_tau : bool
        Whether each layer of neurons learns its time constant, as in the authors' earlier DISTA; else it is 2.
    qkv_bias : bool, optional
        Whether the layers that make q, k and v have a bias. Default: as the variant of V1. The 9.32 M parameters of
        Table 1 are those without.
    """

    nsad: bool = True
    tasa: bool = True
    window: int | tuple[int, ...] = 3
    exponent: int | tuple[int, ...] = 2
    tasa_decay: str = "geometric"
    tasa_output: str = "proj"
    threshold: float = 2.0
    threshold_inclusive: bool = False
    table_scores: str = "0..d"
    decay_input: bool = True
    reset: str = "zero"
    learned_tau: bool = False
    qkv_bias: bool | None = None

    def __post_init__(self) -> None:
        windows, exponents = (x if isinstance(x, tuple) else (x,) for x in (self.window, self.exponent))
        if min(windows) < 1 or min(exponents) < 0:
            raise ValueError(f"window {self.window}, exponent {self.exponent} found; expected at least 1 and 0")
        for name, words in WORDS.items():
            if getattr(self, name) not in words:
                raise ValueError(f"{name} {getattr(self, name)!r} found; expected one of {', '.join(words)}")
        if not (self.nsad or self.tasa):
            raise ValueError(
                "nsad False and tasa False found; expected one of them, as without both it is a Spikformer"
            )
        if self.tasa and self.tasa_output == "proj" and self.per_head:
            raise ValueError(
                "window or exponent per head with tasa_output 'proj' found; expected 'values', 'product' or 'none', as "
                "the projection adds up all heads"
            )

    @property
    def per_head(self) -> bool:
        """Whether heads have windows or exponents of their own."""
        return isinstance(self.window, tuple) or isinstance(self.exponent, tuple)


WORDS = {
    "tasa_decay": ("geometric", "constant"),
    "tasa_output": ("proj", "values", "product", "none"),
    "table_scores": ("0..d", "1..d", "0..d-1"),
    "reset": ("zero", "subtract"),
}


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
    """Temporal attenuation: the sum over m < taw of ``2^(-d m) x[t - m]``, for ``[time, batch, ...]``.

    Filtering the spikes before the synapses is filtering the currents behind them: the map between is linear. With
    windows or exponents per head, x is ``[time, batch, heads, ., .]``.
    """

    def __init__(self, reading: Reading, heads: int) -> None:
        super().__init__()
        for name in ("window", "exponent"):
            values = getattr(reading, name)
            if isinstance(values, tuple) and len(values) != heads:
                raise ValueError(f"{name} {values} found; expected one, or one for each of {heads} heads")
        self.decay = reading.tasa_decay
        self.exponent = nn.Parameter(torch.tensor(reading.exponent).float())
        self.register_buffer("d", torch.tensor(reading.exponent))
        self.register_buffer("taw", torch.tensor(reading.window))

    @torch.no_grad()
    def deploy(self) -> None:
        self.d.copy_(self.exponent.clamp(min=0).round())

    def forward(self, x: Tensor) -> Tensor:
        d = self.d
        if self.training:
            smooth = self.exponent.clamp(min=0)
            d = straight_through(smooth.round(), smooth)
        total = x
        for m in range(1, min(int(self.taw.max()), len(x))):
            factor = torch.exp2(-d * (m if self.decay == "geometric" else 1)) * (self.taw > m)
            if factor.ndim:
                factor = factor.view(-1, 1, 1)
            total = total + torch.cat([torch.zeros_like(x[:m]), factor * x[:-m]])
        return total


class NSAD(Deployed):
    """Nonlinear spiking attention denoiser: ``table[head, score]`` for the scores of ``[..., heads, N, N]``.

    The table holds the integers nearest to ``f(a) = a1 a + c1 + a2 (a - b2)^2 + a3 sigmoid(k3 (a - b3))``, and 0 where
    a is below the threshold u. Every head has its own eight numbers, and f begins as the identity. Training rounds as
    well, and takes the gradient of f; that of u is a surrogate.

    Scores without an entry are those that `Reading.table_scores` leaves out.
    """

    def __init__(self, heads: int, head_width: int, reading: Reading) -> None:
        super().__init__()
        self.threshold_inclusive = reading.threshold_inclusive
        u = reading.threshold
        beginnings = {"u": u, "a1": 1.0, "c1": 0.0, "a2": 0.0, "b2": 0.0, "a3": 0.0, "k3": 1.0, "b3": u}
        for name, value in beginnings.items():
            self.register_parameter(name, nn.Parameter(torch.full((heads,), value)))
        self.first = 1 if reading.table_scores == "1..d" else 0
        self.last = head_width - 1 if reading.table_scores == "0..d-1" else head_width
        self.register_buffer("table", torch.zeros(heads, self.last + 1 - self.first, dtype=torch.int64))
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
        scores = torch.arange(self.first, self.last + 1, dtype=torch.float64, device=self.table.device)
        values = self.f(scores.view(1, 1, -1), {name: value.double() for name, value in self.named_parameters()})
        self.table.copy_(values.squeeze(1).round())

    def forward(self, score: Tensor) -> Tensor:
        score = score.clamp(max=self.last)
        if self.training:
            smooth = self.f(score, dict(self.named_parameters()))
            return straight_through(smooth.round(), smooth)
        head = torch.arange(len(self.table), device=score.device).view(-1, 1, 1)
        entries = self.table[head, score.long().clamp(min=self.first) - self.first].to(score.dtype)
        return entries * (score >= self.first)


class Attention(SSA):
    """Spiking self-attention of V1 with TASA in its stages and NSAD on ``q k^T``, or with one of the two."""

    def __init__(self, width: int, heads: int, variant: Variant, reading: Reading) -> None:
        super().__init__(width, heads, variant)
        self.per_head = reading.per_head
        self.output = reading.tasa_output
        stages = {"proj": ("proj",), "none": ()}.get(self.output, ("attn",))
        if reading.tasa:
            self.tasa = nn.ModuleDict({name: TASA(reading, heads) for name in ("q", "k", "v", *stages)})
        if reading.nsad:
            self.nsad = NSAD(heads, width // heads, reading)

    def attenuate(self, stage: str, x: Tensor) -> Tensor:
        """Return what the window of a stage makes of x; x itself, if it has none."""
        return self.tasa[stage](x) if hasattr(self, "tasa") and stage in self.tasa else x

    def stage(self, name: str, x: Tensor) -> Tensor:
        if self.per_head and hasattr(self, "tasa") and name in self.tasa:
            layer, norm, lif = (self.get_submodule(f"{name}_{part}") for part in (self.layer, "bn", "lif"))
            # of the currents, as each head listens through a window of its own
            u = torch.einsum("oi,tbin->tbon", layer.weight.flatten(1), x)
            u = self.attenuate(name, u.unflatten(2, (self.heads, -1))).flatten(2, 3)
            return lif(each_step(u if layer.bias is None else u + layer.bias.view(-1, 1), norm))
        return super().stage(name, self.attenuate(name, x))

    def forward(self, x: Tensor) -> Tensor:
        # [T, B, width, N] -> [T, B, heads, N, width / heads]
        q, k, v = (self.stage(name, x).unflatten(2, (self.heads, -1)).transpose(3, 4) for name in ("q", "k", "v"))
        attention_map = q @ k.transpose(3, 4)
        if hasattr(self, "nsad"):
            attention_map = self.nsad(attention_map)
        if self.output == "values":
            y = attention_map @ self.attenuate("attn", v)
        else:
            y = self.attenuate("attn", attention_map @ v)
        return self.stage("proj", self.attn_lif((y * self.scale).transpose(3, 4).flatten(2, 3)))


class DS2TA(Spikformer):
    """Spikformer V1 with DS2TA's attention; takes what `Spikformer` takes, and a `Reading`."""

    def __init__(self, variant: str, *, reading: Reading = Reading(), **spikformer: Any) -> None:
        super().__init__(variant, **spikformer)
        self.reading = reading
        if reading.qkv_bias is not None:
            self.variant = replace(self.variant, qkv_bias=reading.qkv_bias)
        for block in self.block:
            block.attn = Attention(self.head.in_features, self.heads, self.variant, reading)
        self.apply(self._read_neurons)

    def _read_neurons(self, module: nn.Module) -> None:
        """Make the neurons that a module holds those of the reading."""
        for name, child in module.named_children():
            if isinstance(child, neuron.LIFNode):
                settings = {
                    "v_threshold": child.v_threshold,
                    "v_reset": None if self.reading.reset == "subtract" else 0.0,
                    "decay_input": self.reading.decay_input,
                    "detach_reset": True,
                    "surrogate_function": surrogate.ATan(),
                    "step_mode": "m",
                }
                kind = neuron.ParametricLIFNode if self.reading.learned_tau else neuron.LIFNode
                setattr(module, name, kind(**settings))


ABLATIONS = {None: {}, "nsad_alone": {"tasa": False}, "tasa_alone": {"nsad": False}}


def nmnist_model(ablation: str | None = None) -> DS2TA:
    """Return the small model that is trained on N-MNIST: 34 x 34 pixels, 9 tokens, 2 blocks.

    Parameters
    ----------
    ablation : {"nsad_alone", "tasa_alone"}, optional
        With one of the two changes alone. Default: with both.
    """
    if ablation not in ABLATIONS:
        raise ValueError(f"ablation {ablation!r} found; expected None, 'nsad_alone' or 'tasa_alone'")
    reading = Reading(**ABLATIONS[ablation])
    sizes = {"width": 64, "depth": 2, "heads": 4, "classes": 10, "in_channels": 2, "size": 34, "time_steps": 5}
    return DS2TA("dvs", reading=reading, **sizes)


def metadata(model: DS2TA) -> dict[str, str]:
    """Return what the state dict cannot tell, and which reading it is, under the names of the importer's options."""
    height, width = model.size
    reading = model.reading
    values = {
        **SYNAPSES_AND_NEURONS,
        "decay_input": reading.decay_input,
        "reset": reading.reset,
        "residual_op": "add",
        "pools": "".join("1" if used else "0" for used in model.variant.pools),
        "pool_order": "after_fire",
        "scale": model.variant.scale,
        "nsad": reading.nsad,
        "tasa": reading.tasa,
        "time_steps": model.time_steps,
        "height": height,
        "width": width,
        "input_kind": "graded" if model.in_channels == 2 else "real",
    }
    if reading.nsad:
        values |= {"threshold_inclusive": reading.threshold_inclusive, "table_scores": reading.table_scores}
    else:
        values["heads"] = model.heads
    if reading.tasa:
        values |= {"tasa_decay": reading.tasa_decay, "tasa_output": reading.tasa_output}
    return {name: str(value) for name, value in values.items()}
