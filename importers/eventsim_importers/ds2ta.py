"""DS2TA: Spikformer V1 whose attention looks back in time (TASA) and goes through tables (NSAD).

"DS2TA: Denoising Spiking Transformer with Attenuated Spatiotemporal Attention" (2024), arXiv 2409.15375. No code was
published; the names are those of Spikformer V1, and ours for what is new, as in ``examples/ds2ta.py``:

===============================================  ================================================================
``block.{i}.attn.tasa.{q,k,v,proj}.d``, ``.taw``  integers: decay exponent and temporal attention window; without
                                                  ``proj`` the output projection is that of V1
``block.{i}.attn.nsad.table``                     integers (heads, d + 1) with d = width / heads: what becomes of a
                                                  score
``block.{i}.attn.nsad.{u,a1,c1,a2,b2,a3,k3,b3}``  (heads,): the numbers that the table was made of; c1 and k3 may be
                                                  absent
``*_lif.w``                                       learned time constant, where there is one
===============================================  ================================================================

Either the table or its numbers must be there; if both are, they must agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from eventsim.errors import InputError
from eventsim.layers import Layer, TableAttention, WindowedLinear
from eventsim.layers.attention.table_attention import LARGEST_ENTRY
from eventsim.network import Network
from eventsim.settings import Setting
from eventsim.signals import FloatArray, IntArray
from eventsim_importers import spikformer
from eventsim_importers.protocol import Importer
from eventsim_importers.reading.checkpoint import Checkpoint, describe
from eventsim_importers.reading.synapses import linear

LARGEST_EXPONENT = 126
PARAMETERS = ("u", "a1", "c1", "a2", "b2", "a3", "k3", "b3")
DEFAULTS = {"c1": 0.0, "k3": 1.0}
FIRST = ("block.0.attn.nsad.", "block.0.attn.tasa.")
"""With what the names of tensors begin that a Spikformer V1 does not have."""
ROUNDING = 1e-6
"""How far a number may be from the middle between two integers to be rounded either way."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Options(spikformer.Options):
    """What the state dict of a DS2TA cannot tell, and what its paper leaves open; None takes the default.

    All options of V1 (`eventsim_importers.spikformer.Options`), with its defaults but 10 time steps for the DVS layout.
    The number of heads is that of the tables, and the tables leave no choice of the attention order. And

    Attributes
    ----------
    tasa_decay : {"geometric", "constant"}, optional
        Factor of the spikes of m steps ago: ``2^(-d m)``, the default, or ``2^-d``.
    tasa_form : {"accumulate_once", "reaccumulate"}
        Serve each spike once and keep the currents, or in each step of the window; see `WindowedLinear`.
    threshold_inclusive : bool, optional
        For tables that are made here: whether a score equal to the threshold u becomes 0. Default: false.
    """

    tasa_decay: Literal["geometric", "constant"] | None = None
    tasa_form: Literal["accumulate_once", "reaccumulate"] | None = None
    threshold_inclusive: bool | None = None


def signature(checkpoint: Checkpoint) -> int:
    """Count the tensors of the Spikformer V1 and those that are new, some of which are in the first block."""
    variant = spikformer.variant_of(checkpoint)
    if variant is None or not any(name.startswith(FIRST) for name in checkpoint.tensors):
        return 0
    new = (
        r"block\.\d+\.attn\.tasa\.(q|k|v|proj)\.(d|taw|exponent)",
        rf"block\.\d+\.attn\.nsad\.(table|{'|'.join(PARAMETERS)})",
        r".*_lif\d?\.w",
    )
    v1 = (*variant.patch_embed_names, *variant.encoder_names, *spikformer.UNUSED)
    return len(checkpoint.matching(*v1, *new))


def read(checkpoint: Checkpoint, options: Options) -> Network:
    """Compose the network: that of `eventsim_importers.spikformer`, with another attention.

    q, k, v = LIF(BN(TASA x)), y = LIF(scale table[q k^T] v), and LIF(BN(TASA y)) is added to x. TASA is the linear map
    over the window, its bias and normalisation acting once.

    Raises
    ------
    InputError
        If a tensor is missing, left over, of the wrong shape or out of range, or an option does not fit.
    """
    variant = spikformer.variant_of(checkpoint)
    if variant is None or not signature(checkpoint):
        raise InputError(
            f"{checkpoint.path}: no DS2TA found; expected block.0.attn.nsad or block.0.attn.tasa, and as in a "
            f"Spikformer {spikformer.TOLD_BY}"
        )
    return _Reader(checkpoint, options, variant).network()


class _Reader(spikformer.Reader):
    """Reads another attention."""

    def __init__(self, checkpoint: Checkpoint, options: Options, variant: spikformer.Variant) -> None:
        time_steps = 10 if variant is spikformer.DVS else variant.time_steps
        self.absent: dict[str, list[str]] = {}
        super().__init__(checkpoint, options, replace(variant, time_steps=time_steps))
        if self.attention_order != "scores_first":
            raise InputError(
                f"{self._said('attention_order')}attention_order={self.attention_order} found; expected scores_first, "
                "as the tables act on q k^T"
            )
        self.decay = cast(Literal["geometric", "constant"], self.choose("tasa_decay", "geometric"))
        form = self.choose.way("tasa_form", "accumulate_once")
        self.form = cast(Literal["accumulate_once", "reaccumulate"], form)
        self.threshold_inclusive = False
        if any(name.endswith(".nsad.u") for name in checkpoint.tensors):
            self.threshold_inclusive = self.choose("threshold_inclusive", False)

    def _name(self) -> str:
        return f"DS2TA {self.variant.name} {self.depth}-{self.dim}"

    def _heads(self) -> int:
        """Return the number of rows of the first table."""
        tensors, nsad = self.checkpoint.tensors, "block.0.attn.nsad"
        name = f"{nsad}.table" if f"{nsad}.table" in tensors else f"{nsad}.u"
        if name not in tensors or tensors[name].ndim == 0:
            raise self._no_table(nsad)
        heads = len(tensors[name])
        if heads < 1 or self.dim % heads:
            raise InputError(
                f"{self.checkpoint.path}: tensor {name} {describe(tensors[name].shape)} found; "
                f"expected a number of heads that divides the width {self.dim}"
            )
        asked = self.choose.inferred("heads", heads, name)
        if asked != heads:
            raise InputError(f"{self._said('heads')}heads={asked} found; expected {heads}, as {name} has")
        return heads

    def _said(self, option: str) -> str:
        """Return how a message begins that names what was said of an option, and by whom."""
        given = getattr(self.choose.options, option) is not None
        return "option " if given else f"{self.checkpoint.path}: metadata "

    def _finish(self, logits: str, time_steps: int) -> Network:
        """List what was told by tensors that are absent."""
        for name, absent in self.absent.items():
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            value, note = (DEFAULTS[name], "absent") if name in DEFAULTS else (None, "absent, a projection as in V1")
            self.checkpoint.say(Setting(name, value, "inferred", f"{absent[0]}{more} {note}"))
        return super()._finish(logits, time_steps)

    def _attend(self, attn: str, q: str, k: str, v: str) -> str:
        return self.build.add(attn, TableAttention(self._table(f"{attn}.nsad"), self._scale_of(attn)), q, k, v)

    def _project(
        self, attn: str, part: str, source: str, make: Callable[[FloatArray, FloatArray | None], Layer] = linear
    ) -> str:
        tasa = f"{attn}.tasa.{part}"
        if part != "proj" or f"{tasa}.d" in self.checkpoint.tensors:
            exponent = self._exponent(tasa)
            window = self._integer(f"{tasa}.taw", 1, None)
            if window > 1:
                make = partial(WindowedLinear, window=window, exponent=exponent, decay=self.decay, form=self.form)
        else:
            self.absent.setdefault("tasa.proj", []).append(tasa)
        return super()._project(attn, part, source, make)

    def _exponent(self, tasa: str) -> int:
        """Take d; if the real number that it was rounded from is there too, they must agree."""
        d = self._integer(f"{tasa}.d", 0, LARGEST_EXPONENT)
        if f"{tasa}.exponent" in self.checkpoint.tensors:
            trained = float(self.checkpoint.take(f"{tasa}.exponent"))
            if abs(max(trained, 0.0) - d) > 0.5 + ROUNDING:
                raise InputError(
                    f"{self.checkpoint.path}: tensor {tasa}.d = {d} found; "
                    f"expected {tasa}.exponent = {trained:g} rounded"
                )
        return d

    def _table(self, nsad: str) -> IntArray:
        """Take a table, or make it of its numbers; (heads, d + 1)."""
        path, name = self.checkpoint.path, f"{nsad}.table"
        table = exact = None
        if name in self.checkpoint.tensors:
            table = self.checkpoint.take_integers(name, self.heads, self.dim // self.heads + 1)
        if f"{nsad}.u" in self.checkpoint.tensors:
            exact = self._denoiser(nsad)
        if table is None:
            if exact is None:
                raise self._no_table(nsad)
            table = np.rint(exact).astype(np.int64)
        elif exact is not None and (apart := np.abs(table - exact) > 0.5 + ROUNDING).any():
            head, score = np.argwhere(apart)[0]
            raise InputError(
                f"{path}: tensor {name} holds {table[head, score]} for score {score} of head {head}; "
                f"expected {exact[head, score]:g} rounded, which {nsad}.u and so on make of it"
            )
        if table[:, 0].any():
            (head,) = np.flatnonzero(table[:, 0])[:1]
            raise InputError(
                f"{path}: tensor {name} holds {table[head, 0]} for score 0 of head {head}; expected 0, "
                "as silence must stay silent (a threshold u above 0 sees to it)"
            )
        return table.astype(np.int32)

    def _no_table(self, nsad: str) -> InputError:
        return InputError(f"{self.checkpoint.path}: tensor {nsad}.table missing; expected it, or {nsad}.u and so on")

    def _denoiser(self, nsad: str) -> Floats:
        """Return f(a) for all scores a, before rounding.

        0 below u, and else ``a1 a + c1 + a2 (a - b2)^2 + a3 sigmoid(k3 (a - b3))``.
        """
        tensors = self.checkpoint.tensors
        p = {name: np.full(self.heads, value) for name, value in DEFAULTS.items()}
        p |= {
            name: self.checkpoint.take(f"{nsad}.{name}", self.heads).astype(np.float64)
            for name in PARAMETERS
            if f"{nsad}.{name}" in tensors or name not in DEFAULTS
        }
        for name in DEFAULTS:
            if f"{nsad}.{name}" not in tensors:
                self.absent.setdefault(name, []).append(f"{nsad}.{name}")
        u, a1, c1, a2, b2, a3, k3, b3 = (p[name][:, None] for name in PARAMETERS)
        a = np.arange(self.dim // self.heads + 1, dtype=np.float64)
        g = a1 * a + c1 + a2 * (a - b2) ** 2 + a3 * expit(k3 * (a - b3))
        f = np.where(a <= u if self.threshold_inclusive else a < u, 0, g)
        if np.abs(f).max() > LARGEST_ENTRY:
            raise InputError(
                f"{self.checkpoint.path}: tensors {nsad}.* make entries beyond {LARGEST_ENTRY}; expected less"
            )
        return f

    def _integer(self, name: str, least: int, most: int | None) -> int:
        """Take one whole number from `least` to `most`."""
        value = int(self.checkpoint.take_integers(name))
        if value < least or (most is not None and value > most):
            limits = f"at least {least}" if most is None else f"from {least} to {most}"
            raise InputError(f"{self.checkpoint.path}: tensor {name} = {value} found; expected a whole number {limits}")
        return value


IMPORTER = Importer(
    "DS2TA: Spikformer V1 with temporally attenuated attention and denoising tables", Options, signature, read
)
