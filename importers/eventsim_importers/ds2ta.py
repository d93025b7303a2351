"""DS2TA: Spikformer V1 whose attention looks back in time (TASA) and goes through tables (NSAD), or one of the two.

"DS2TA: Denoising Spiking Transformer with Attenuated Spatiotemporal Attention" (2024), arXiv 2409.15375. No code was
published; the names are those of Spikformer V1, with or without biases in q, k and v, and ours for what is new, as in
``examples/ds2ta.py``:

===============================================  ================================================================
``block.{i}.attn.tasa.{q,k,v}.d``, ``.taw``       integers: decay exponent and temporal attention window; one, or
                                                  (heads,). Without any, the model has NSAD alone
``block.{i}.attn.tasa.proj.d``, ``.taw``          one each, where the output projection has a window
``block.{i}.attn.tasa.attn.d``, ``.taw``          instead, one or (heads,), where the product of map and v has one
``block.{i}.attn.nsad.table``                     integers (heads, d + 1) or (heads, d) with d = width / heads: what
                                                  becomes of a score
``block.{i}.attn.nsad.{u,a1,c1,a2,b2,a3,k3,b3}``  (heads,): the numbers that the table was made of; c1 and k3 may be
                                                  absent. Without table and numbers, the model has TASA alone
``*_lif.w``                                       learned time constant, where there is one
===============================================  ================================================================

Where there is NSAD, either the table or its numbers must be there; if both are, they must agree.
docs/papers/ds2ta.md goes through the paper sentence by sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar, cast

import numpy as np
import numpy.typing as npt

from eventsim.errors import InputError
from eventsim.layers import Affine, Layer, Residual, SpikingAttention, TableAttention, WindowedLinear
from eventsim.layers.attention.table_attention import LARGEST_ENTRY
from eventsim.layers.sigmoid import sigmoid
from eventsim.network import Delayed, Network
from eventsim.settings import Setting
from eventsim.signals import FloatArray, IntArray
from eventsim_importers import spikformer
from eventsim_importers.protocol import Importer
from eventsim_importers.reading.checkpoint import Checkpoint, describe
from eventsim_importers.reading.synapses import linear

LARGEST_EXPONENT = 126
LONGEST = 64
"""Window of the product of map and v, for which layers are added step by step."""
PARAMETERS = ("u", "a1", "c1", "a2", "b2", "a3", "k3", "b3")
DEFAULTS = {"c1": 0.0, "k3": 1.0}
NEW = r"block\.\d+\.attn\.(nsad|tasa)\..*"
"""Names of tensors that a Spikformer V1 does not have, as a regular expression."""
ROUNDING = 1e-6
"""How far a number may be from the middle between two integers to be rounded either way."""

T = TypeVar("T", bool, str)
Floats = npt.NDArray[np.float64]
Each = int | tuple[int, ...]
"""One number, or one for each head."""


@dataclass(frozen=True)
class Options(spikformer.Options):
    """What the state dict of a DS2TA cannot tell, and what its paper leaves open; None takes the default.

    All options of V1 (`eventsim_importers.spikformer.Options`), with its defaults but 10 time steps for the DVS layout.
    With tables, the number of heads is theirs, and they leave no choice of the attention order. `decay_input` and
    `reset` are the form of eqs. 2 and 3, which are lost. And

    Attributes
    ----------
    nsad, tasa : bool, optional
        Whether the attention has tables, and windows (Table 4). The tensors tell; a value that they deny is refused.
    tasa_decay : {"geometric", "constant"}, optional
        Eq. 5: factor of the spikes of m steps ago: ``2^(-d m)``, the default, or ``2^-d``.
    tasa_output : {"proj", "values", "product", "none"}, optional
        What makes the "final output of each attention block" (section 3.1). The tensors tell whether the output
        projection has a window ("proj"), or the product of map and v, or neither ("none"). Of the product: the spikes
        of v are attenuated, ``map[t] sum_m a_m v[t - m]`` ("values", the default, as the map stands where eq. 1 has the
        weight); or its currents, ``sum_m a_m map[t - m] v[t - m]`` ("product").
    tasa_form : {"accumulate_once", "reaccumulate"}
        Serve each spike once and keep the currents, or in each step of the window; see `WindowedLinear`.
    threshold_inclusive : bool, optional
        Eq. 6, for tables that are made here: whether a score equal to the threshold u becomes 0. Default: false.
    table_scores : {"0..d", "1..d", "0..d-1"}, optional
        Section 3.2.2: which scores have an entry. A table of d + 1 entries tells; for one of d the default is "1..d",
        where a score of 0 stays 0, as it has to, and every other has an entry; with "0..d-1" a score of d takes the
        last. For tables that are made here: "0..d".
    """

    nsad: bool | None = None
    tasa: bool | None = None
    tasa_decay: Literal["geometric", "constant"] | None = None
    tasa_output: Literal["proj", "values", "product", "none"] | None = None
    tasa_form: Literal["accumulate_once", "reaccumulate"] | None = None
    threshold_inclusive: bool | None = None
    table_scores: Literal["0..d", "1..d", "0..d-1"] | None = None


def variant_of(checkpoint: Checkpoint) -> spikformer.Variant | None:
    """Return the variant of V1 that a checkpoint is built on, with biases in q, k and v where there are some."""
    variant = spikformer.variant_of(checkpoint)
    if variant is None:
        return None
    time_steps = 10 if variant is spikformer.DVS else variant.time_steps
    biased = bool(checkpoint.matching(rf"block\.\d+\.attn\.[qkv]_{variant.layer}\.bias"))
    return replace(variant, time_steps=time_steps, qkv_bias=biased)


def signature(checkpoint: Checkpoint) -> int:
    """Count the tensors of the Spikformer V1 and those that are new, of which there are some."""
    variant = variant_of(checkpoint)
    if variant is None or not checkpoint.matching(NEW):
        return 0
    new = (
        r"block\.\d+\.attn\.tasa\.(q|k|v|proj|attn)\.(d|taw|exponent)",
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
    variant = variant_of(checkpoint)
    if variant is None or not signature(checkpoint):
        raise InputError(
            f"{checkpoint.path}: no DS2TA found; expected block.0.attn.nsad or block.0.attn.tasa, and as in a "
            f"Spikformer {spikformer.TOLD_BY}"
        )
    return _Reader(checkpoint, options, variant).network()


class _Reader(spikformer.Reader):
    """Reads another attention."""

    def __init__(self, checkpoint: Checkpoint, options: Options, variant: spikformer.Variant) -> None:
        self.absent: dict[str, list[str]] = {}
        self.nsad, self.tasa = (bool(checkpoint.matching(rf"block\.\d+\.attn\.{x}\..*")) for x in ("nsad", "tasa"))
        super().__init__(checkpoint, options, variant)
        self._read_windows()
        self._read_tables()

    def _read_windows(self) -> None:
        """Choose what TASA leaves open."""
        if not self._has("tasa", "tasa_decay", "tasa_output", "tasa_form"):
            self.output = "none"
            return
        self.decay = cast(Literal["geometric", "constant"], self.choose("tasa_decay", "geometric"))
        form = self.choose.way("tasa_form", "accumulate_once")
        self.form = cast(Literal["accumulate_once", "reaccumulate"], form)
        proj, attn = (self.checkpoint.matching(rf"block\.\d+\.attn\.tasa\.{x}\..*") for x in ("proj", "attn"))
        if proj:
            self.output = "proj"
            self._agree("tasa_output", "proj", f"there is a tensor {proj[0]}")
        elif attn:
            self.output = self.choose("tasa_output", "values")
            if self.output not in ("values", "product"):
                raise InputError(
                    f"{self._said('tasa_output')}tasa_output={self.output} found; expected values or product, as "
                    f"there is a tensor {attn[0]}"
                )
        else:
            self.output = "none"
            why = "there is no tensor block.*.attn.tasa.proj.* or block.*.attn.tasa.attn.*"
            self._agree("tasa_output", "none", why, say=True)

    def _read_tables(self) -> None:
        """Choose what NSAD leaves open."""
        if not self._has("nsad", "threshold_inclusive", "table_scores"):
            return
        if self.attention_order != "scores_first":
            raise InputError(
                f"{self._said('attention_order')}attention_order={self.attention_order} found; expected scores_first, "
                "as the tables act on q k^T"
            )
        self.threshold_inclusive = False
        if any(name.endswith(".nsad.u") for name in self.checkpoint.tensors):
            self.threshold_inclusive = self.choose("threshold_inclusive", False)
        self.table_scores = self._table_scores("block.0.attn.nsad.table")

    def _table_scores(self, name: str) -> str:
        """Return which scores have an entry, as far as the length of the first table tells."""
        d = self.dim // self.heads
        table = self.checkpoint.tensors.get(name)
        if table is None:
            return self.choose("table_scores", "0..d")
        if table.ndim != 2 or table.shape[1] not in (d, d + 1):
            raise InputError(
                f"{self.checkpoint.path}: tensor {name} {describe(table.shape)} found; expected "
                f"{describe((self.heads, d + 1))} or {describe((self.heads, d))}"
            )
        if table.shape[1] == d + 1:
            self._agree("table_scores", "0..d", f"{name} has {d + 1} entries for each head")
            return "0..d"
        scores = self.choose("table_scores", "1..d")
        if scores == "0..d":
            raise InputError(
                f"{self._said('table_scores')}table_scores=0..d found; expected 1..d or 0..d-1, as {name} has {d} "
                "entries for each head"
            )
        return scores

    def _has(self, part: str, *options: str) -> bool:
        """Return whether the model has NSAD or TASA; options of one that it does not have are refused."""
        found, tensors = bool(getattr(self, part)), f"block.*.attn.{part}.*"
        if found:
            self._agree(part, True, f"there are tensors {tensors}")
            return True
        self._agree(part, False, f"there is no tensor {tensors}", say=True)
        for option in options:
            if (stated := self.choose.stated(option)) is not None:
                raise InputError(
                    f"{self._said(option)}{option}={stated} found; expected none, as there is no tensor {tensors}"
                )
        return False

    def _agree(self, option: str, found: T, why: str, say: bool = False) -> None:
        """Refuse an option that says anything but what the tensors say; what they say may be listed."""
        stated = self.choose.inferred(option, found, why) if say else self.choose.stated(option)
        if stated not in (None, found):
            raise InputError(f"{self._said(option)}{option}={stated} found; expected {found}, as {why}")

    def _name(self) -> str:
        alone = "" if self.nsad and self.tasa else " with NSAD alone" if self.nsad else " with TASA alone"
        return f"DS2TA {self.variant.name} {self.depth}-{self.dim}{alone}"

    def _heads(self) -> int:
        """Return the number of rows of the first table, else of windows of the first attention; else choose it."""
        tensors, nsad, tasa = self.checkpoint.tensors, "block.0.attn.nsad", "block.0.attn.tasa"
        if self.nsad:
            name = f"{nsad}.table" if f"{nsad}.table" in tensors else f"{nsad}.u"
            if name not in tensors or tensors[name].ndim == 0:
                raise self._no_table(nsad)
        else:
            each = [f"{tasa}.{part}.{what}" for part in ("q", "k", "v", "attn") for what in ("taw", "d")]
            each = [name for name in each if name in tensors and tensors[name].ndim == 1]
            if not each:
                return super()._heads()
            name = each[0]
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
        """List what was told by tensors that are absent, and the position embedding that is not used."""
        for name, absent in self.absent.items():
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            self.checkpoint.say(Setting(name, DEFAULTS[name], "inferred", f"{absent[0]}{more} absent"))
        if "pos_embed" in self.checkpoint.tensors:
            why = "pos_embed: V1 declares a position embedding that its forward pass never reads"
            self.checkpoint.say(Setting("ignore", "pos_embed", "inferred", why))
        return super()._finish(logits, time_steps)

    def _attend(self, attn: str, q: str, k: str, v: str) -> str:
        """Add the attention; where its product has a window, once for each step of it that v is heard from.

        ``sum_m a_m map[t] v[t - m]`` are attentions to a v that is delayed, and ``sum_m a_m map[t - m] v[t - m]`` is
        the attention delayed.
        """
        if self.nsad:
            attend: Layer = TableAttention(self._table(f"{attn}.nsad"), self._scale_of(attn))
        else:
            attend = SpikingAttention(self.heads, self._scale_of(attn), self.attention_order)
        y = product = self.build.add(attn, attend, q, k, v)
        if self.output not in ("values", "product"):
            return y
        tasa = self._window(f"{attn}.tasa.attn", per_head=True, longest=LONGEST)
        windows, exponents = (np.broadcast_to(x, self.heads) for x in tasa)
        for age in range(1, max(windows)):
            earlier: str | Delayed = Delayed(product, age)
            if self.output == "values":
                earlier = self.build.add(f"{attn}.ago{age}", attend, q, k, Delayed(v, age))
            halvings = exponents * (age if self.decay == "geometric" else 1)
            factors = np.where(windows > age, np.ldexp(1.0, -halvings), 0.0).astype(np.float32)
            if (factors != 1).any():
                attenuate = Affine(np.repeat(factors, self.dim // self.heads))
                earlier = self.build.add(f"{attn}.attenuate{age}", attenuate, earlier)
            y = self.build.add(f"{attn}.sum{age}", Residual("add"), y, earlier)
        return y

    def _project(
        self, attn: str, part: str, source: str, make: Callable[[FloatArray, FloatArray | None], Layer] = linear
    ) -> str:
        if self.output == "proj" if part == "proj" else self.tasa:
            window, exponent = self._window(f"{attn}.tasa.{part}", per_head=part != "proj")
            if window != 1:
                make = partial(WindowedLinear, window=window, exponent=exponent, decay=self.decay, form=self.form)
        return super()._project(attn, part, source, make)

    def _window(self, tasa: str, per_head: bool, longest: int | None = None) -> tuple[Each, Each]:
        """Take window and exponent; if the real numbers that these were rounded from are there too, they must agree."""
        exponent = self._integers(f"{tasa}.d", 0, LARGEST_EXPONENT, per_head)
        window = self._integers(f"{tasa}.taw", 1, longest, per_head)
        name = f"{tasa}.exponent"
        if name in self.checkpoint.tensors:
            d = np.array(exponent)
            trained = self.checkpoint.take(name, *self.checkpoint.tensors[f"{tasa}.d"].shape)
            if (apart := np.abs(np.maximum(trained, 0.0) - d) > 0.5 + ROUNDING).any():
                raise InputError(
                    f"{self.checkpoint.path}: tensor {tasa}.d = {np.broadcast_to(d, trained.shape)[apart][0]} found; "
                    f"expected {name} = {trained[apart][0]:g} rounded"
                )
        return window, exponent

    def _integers(self, name: str, least: int, most: int | None, per_head: bool) -> Each:
        """Take a whole number from `least` to `most`, or one for each head; one, if all are the same."""
        tensor = self.checkpoint.tensors.get(name)
        shape: tuple[int, ...] = ()
        if tensor is not None and tensor.ndim:
            if not per_head or tensor.shape != (self.heads,):
                expected = (
                    f"() or {describe((self.heads,))}, one for each head"
                    if per_head
                    else "(), as the output projection adds up all heads"
                )
                raise InputError(
                    f"{self.checkpoint.path}: tensor {name} {describe(tensor.shape)} found; expected {expected}"
                )
            shape = (self.heads,)
        values = [int(value) for value in self.checkpoint.take_integers(name, *shape).flat]
        for value in values:
            if value < least or (most is not None and value > most):
                limits = f"at least {least}" if most is None else f"from {least} to {most}"
                raise InputError(
                    f"{self.checkpoint.path}: tensor {name} = {value} found; expected a whole number {limits}"
                )
        return values[0] if len(set(values)) == 1 else tuple(values)

    def _table(self, nsad: str) -> IntArray:
        """Take a table, or make it of its numbers; (heads, d + 1), with what becomes of a score without an entry."""
        path, name, d = self.checkpoint.path, f"{nsad}.table", self.dim // self.heads
        table = exact = None
        if name in self.checkpoint.tensors:
            table = self.checkpoint.take_integers(name, self.heads, d + 1 if self.table_scores == "0..d" else d)
            if self.table_scores == "1..d":
                table = np.pad(table, ((0, 0), (1, 0)))
            elif self.table_scores == "0..d-1":
                table = np.pad(table, ((0, 0), (0, 1)), mode="edge")
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
        d = self.dim // self.heads
        a = np.minimum(np.arange(d + 1, dtype=np.float64), d - 1 if self.table_scores == "0..d-1" else d)
        g = a1 * a + c1 + a2 * (a - b2) ** 2 + a3 * sigmoid(k3 * (a - b3))
        f = np.where(a <= u if self.threshold_inclusive else a < u, 0, g)
        if self.table_scores == "1..d":
            f[:, 0] = 0
        if np.abs(f).max() > LARGEST_ENTRY:
            raise InputError(
                f"{self.checkpoint.path}: tensors {nsad}.* make entries beyond {LARGEST_ENTRY}; expected less"
            )
        return f


IMPORTER = Importer(
    "DS2TA: Spikformer V1 with temporally attenuated attention and denoising tables", Options, signature, read
)
