"""Linear algebra on one thread while the command line works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from eventsim import Network, Simulator, cli, save


def threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_the_command_line_multiplies_on_one_thread(
    small_network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(small_network, tmp_path / "m.h5")
    np.save(tmp_path / "x.npy", np.ones((4, 2, 6, 6), np.float32))
    seen: list[set[int]] = []
    run = Simulator.run

    def watched(self: Simulator, *args: Any, **options: Any) -> Any:
        seen.append(threads())
        return run(self, *args, **options)

    monkeypatch.setattr(Simulator, "run", watched)
    with threadpool_limits(2):
        assert threads() == {2}
        assert cli.main(["run", str(tmp_path / "m.h5"), str(tmp_path / "x.npy")]) == 0
        assert seen == [{1}]
        assert threads() == {2}, "given back to who called"
