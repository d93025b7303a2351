"""One reading of neurons, residual connections and pooling for every system that is built of them.

A format's options derive from the dataclasses here, and its reader asks the classes beside them. No field has a default
of its own: the metadata of the file answers, else the value is assumed and listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

from eventsim.errors import InputError
from eventsim.layers import IF, LIF, PLIAF, PLIF, Layer, MaxPool2d
from eventsim.network import NetworkBuilder
from eventsim_importers.reading.options import NOT_STATED, Chooser

ResidualMode = Literal["add", "iand", "and"]


@dataclass(frozen=True)
class FiringOptions:
    """How neurons fire and what they do then.

    Attributes
    ----------
    v_threshold : float, optional
        Potential at which neurons fire. Default: 1.
    reset : {"zero", "subtract"}, optional
        Back to `v_reset`, or by subtraction of the threshold. Default: "zero".
    v_reset : float, optional
        Where the potential starts, leaks to, and is after a reset to "zero". Default: 0.
    strict : bool, optional
        Fire above the threshold only. Default: false, as in SpikingJelly.
    """

    v_threshold: float | None = None
    reset: Literal["zero", "subtract"] | None = None
    v_reset: float | None = None
    strict: bool | None = None


@dataclass(frozen=True)
class LeakOptions(FiringOptions):
    """How leaky neurons charge, fire and reset: `FiringOptions`, and below.

    Attributes
    ----------
    decay_input : bool, optional
        Whether the input is divided by the time constant too, given or learned. Default: true, as in SpikingJelly.
    """

    decay_input: bool | None = None


@dataclass(frozen=True)
class LIFOptions(LeakOptions):
    """`LeakOptions`, and below.

    Attributes
    ----------
    tau : float, optional
        Membrane time constant in time steps. Default: 2.
    """

    tau: float | None = None


@dataclass(frozen=True)
class ResidualOptions:
    """How residual connections join.

    Attributes
    ----------
    residual_op : {"add", "iand", "and"}, optional
        Sums; spikes of the shortcut where the branch is silent; or where both spike (the element-wise functions of
        SEW-ResNet). Default: "add".
    """

    residual_op: Literal["add", "iand", "and"] | None = None


@dataclass(frozen=True)
class PoolOptions:
    """Where maximum poolings are among the stages of a patch embedding.

    Attributes
    ----------
    pools : str, optional
        Which stages of the patch embedding have a max pooling, as ones and zeros, such as "0011".
    pool_order : {"after_fire", "before_fire"}, optional
        Whether a stage's neurons see the map before it is pooled, or after (as in CML). Default: "after_fire".
    """

    pools: str | None = None
    pool_order: Literal["after_fire", "before_fire"] | None = None


class Firing:
    """Threshold and reset as chosen; potentials are measured from `v_reset`, where they start and leak to.

    Parameters
    ----------
    choose : Chooser
        Of options that derive from `FiringOptions`.

    Raises
    ------
    InputError
        If the values do not go together.
    """

    def __init__(self, choose: Chooser) -> None:
        self._path = choose.checkpoint.path
        self.v_threshold = choose("v_threshold", 1.0)
        self.reset = cast(Literal["zero", "subtract"], choose("reset", "zero"))
        self.strict = choose("strict", False)
        self.v_reset = 0.0
        if self.reset == "zero":
            self.v_reset = choose("v_reset", 0.0)
        else:
            choose.without_effect("v_reset", "reset=subtract", "reset=zero", harmless=0.0)

    def threshold(self, value: float, option: str) -> float:
        """Return a threshold as measured from the reset potential.

        Raises
        ------
        InputError
            If it is not above it: such neurons fire for ever.
        """
        if value <= self.v_reset:
            raise InputError(f"{self._path}: {option}={value:g} found; expected more than v_reset={self.v_reset:g}")
        return value - self.v_reset

    def integrate(self) -> IF:
        """Return neurons without a leak."""
        return IF(self.threshold(self.v_threshold, "v_threshold"), self.reset, self.strict)


class Leaking(Firing):
    """`Firing`, and the form of the leak.

    Parameters
    ----------
    choose : Chooser
        Of options that derive from `LeakOptions`.
    """

    def __init__(self, choose: Chooser) -> None:
        super().__init__(choose)
        self.decay_input = choose("decay_input", True)

    def plif(
        self, w: float, threshold: float | None = None, option: str = "v_threshold", kind: type[PLIF] = PLIF
    ) -> PLIF:
        """Return neurons of a learned time constant, `PLIF` or what derives from it.

        Raises
        ------
        InputError
            If they pass on their potential, which would have to be measured from 0.
        """
        if kind is PLIAF and self.v_reset:
            raise InputError(f"{self._path}: v_reset={self.v_reset:g} with analog outputs found; expected 0")
        v_threshold = self.threshold(self.v_threshold if threshold is None else threshold, option)
        return kind(v_threshold, self.reset, self.strict, w, self.decay_input)


class Neurons(Leaking):
    """`Leaking`, and the time constant.

    Parameters
    ----------
    choose : Chooser
        Of options that derive from `LIFOptions`.
    """

    def __init__(self, choose: Chooser, tau: float = 2.0, tau_note: str = NOT_STATED) -> None:
        super().__init__(choose)
        self._choose, self._default, self._note = choose, tau, tau_note

    @cached_property
    def tau(self) -> float:
        """The time constant, chosen where some neurons have it: others may have learned one each."""
        tau = self._choose("tau", self._default, self._note)
        if tau < 1:
            raise InputError(f"{self._path}: tau={tau:g} found; expected at least 1 time step")
        return tau

    def lif(self, threshold: float | None = None, option: str = "v_threshold") -> LIF:
        """Return neurons, with the threshold of all unless another is given under the name of its option."""
        v_threshold = self.threshold(self.v_threshold if threshold is None else threshold, option)
        return LIF(v_threshold, self.reset, self.strict, self.tau, self.decay_input)


class Pools:
    """Maximum poolings of 3 x 3 and stride 2 behind stages that end in neurons.

    Parameters
    ----------
    choose : Chooser
        Of options that derive from `PoolOptions`.
    default : str
        Which stages have a pooling.
    before_fire : bool, optional
        Whether it comes before the neurons, where another option than `pool_order` says so.

    Raises
    ------
    InputError
        If `pools` is not a one or zero for each stage.
    """

    def __init__(self, choose: Chooser, default: str, before_fire: bool | None = None) -> None:
        self.stages = choose("pools", default)
        self.before_fire = choose("pool_order", "after_fire") == "before_fire" if before_fire is None else before_fire
        if len(self.stages) != len(default) or set(self.stages) - set("01"):
            raise InputError(
                f"{choose.checkpoint.path}: pools={self.stages} found; expected {len(default)} ones and zeros, such as "
                f"{default}"
            )

    def add(self, build: NetworkBuilder, stage: int, pool: str, x: str, lif: str, neurons: Layer) -> str:
        """Add the neurons of a stage and its pooling, in their order; return the last layer's name."""
        pooled = self.stages[stage] == "1"
        layer = MaxPool2d((3, 3), (2, 2), (1, 1))
        if pooled and self.before_fire:
            x = build.add(pool, layer, x)
        x = build.add(lif, neurons, x)
        return build.add(pool, layer, x) if pooled and not self.before_fire else x
