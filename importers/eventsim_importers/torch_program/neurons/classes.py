"""Which class a module is of, by the names of its classes, without importing the framework that defines them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from eventsim.errors import InputError

GIVE = "give neurons={Class: function}, which returns its Neuron"
HARMLESS = ("reset", "reset_mem", "reset_states", "reset_hidden", "detach", "extra_repr", "instances")
"""Attributes that no step depends on, which a subclass or an instance may have of its own."""


@dataclass(frozen=True)
class Classes:
    """The neuron classes of a framework.

    Attributes
    ----------
    package : str
        The top-level package.
    modules : tuple of str
        Modules and packages of it that define neurons.
    known : tuple of str
        Classes there that can be read.
    stateful : tuple of str
        Classes elsewhere that hold a state: what derives from one is a neuron if it defines one of `dynamics`.
    dynamics : tuple of str
    """

    package: str
    modules: tuple[str, ...]
    known: tuple[str, ...]
    stateful: tuple[str, ...] = ()
    dynamics: tuple[str, ...] = ()

    def kind(self, module: Any) -> str | None:
        """Return the known class that a module is of or derives from, None of what is no neuron of the framework.

        Raises
        ------
        InputError
            If it is a neuron of the framework that is not known, or derives from one and changes what that does.
        """
        derived: list[type] = []
        for index, cls in enumerate(mro := type(module).__mro__):
            if top(cls) == self.package:
                if self._defines_neurons(cls):
                    if cls.__name__ not in self.known:
                        raise refusal(
                            module, f"a neuron of {self.package}", f"one of {', '.join(self.known)}, or {GIVE}"
                        )
                    self._check(module, cls, derived, mro[index:])
                    return cls.__name__
                changed = [name for each in derived for name in self.dynamics if name in vars(each)]
                if cls.__name__ in self.stateful and changed:
                    raise refusal(
                        module, f"a {cls.__name__} of {self.package} with a {changed[0]} of its own", f"that you {GIVE}"
                    )
            derived.append(cls)
        return None

    def _defines_neurons(self, cls: type) -> bool:
        return any(cls.__module__ == name or cls.__module__.startswith(f"{name}.") for name in self.modules)

    def _check(self, module: Any, known: type, derived: Iterable[type], bases: Iterable[type]) -> None:
        """Refuse a subclass, or an instance, with its own of what the framework defines."""
        defined = {
            name: value
            for cls in reversed(tuple(bases))
            if top(cls) == self.package
            for name, value in vars(cls).items()
        }
        defined = {name: value for name, value in defined.items() if not name.startswith("__") and name not in HARMLESS}
        changed = [name for cls in derived for name in vars(cls) if name in defined or name == "__call__"]
        changed += [name for name in vars(module) if callable(defined.get(name)) or name == "forward"]
        if changed:
            raise refusal(
                module,
                f"a {known.__name__} of {self.package} with a {changed[0]} of its own",
                f"one without, or {GIVE}",
            )


def top(cls: type) -> str:
    """Return the top-level package of a class."""
    return cls.__module__.partition(".")[0]


def named(value: Any) -> tuple[str, str]:
    """Return package and name of a class or function, or of an instance's class."""
    own = value if hasattr(value, "__name__") else type(value)
    return own.__module__.partition(".")[0], own.__name__


def refusal(module: Any, found: str, expected: str) -> InputError:
    """Return the error for a module."""
    cls = type(module)
    return InputError(f"{cls.__module__}.{cls.__qualname__}: {found} found; expected {expected}")
