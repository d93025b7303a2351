"""`verify`: equal where arithmetic is exact, within the margin where it rounds, and what a fault looks like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from strategies import Drawn, networks, recurrent_networks
from test_networks import simulate

import eventsim

pytestmark = pytest.mark.kernels

F = np.float32


def checked(drawn: Drawn, frames: object, piece: int) -> eventsim.Verification:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eventsim.verification.piece_of", lambda *_: piece)
        return eventsim.verify(drawn.network, frames, len(drawn.frames) if np.ndim(frames) else None)


@given(data=st.data())
@pytest.mark.parametrize("strategy", [networks, recurrent_networks])
def test_dyadic_networks_are_equal_bit_for_bit_in_pieces_of_any_size(strategy, data):
    drawn = data.draw(strategy())
    result = simulate(drawn)
    for frames in (drawn.frames, drawn.frames[0], iter(drawn.frames)):
        piece = data.draw(st.integers(1, len(drawn.frames)))
        found = checked(drawn, frames, piece)
        assert found.equal, (found, found.rows())
        assert found.verdict.startswith("equal (bit for bit: ")
        assert found.time_steps == len(drawn.frames)
        if frames is not drawn.frames[0]:
            assert_array_equal(found.logits, found.dense_logits)
        if frames is drawn.frames:
            assert_array_equal(found.logits, result.logits)
            spikes = {layer.name: layer.counts.spikes for layer in result.profile if layer.neurons}
            assert {layer.name: layer.spikes for layer in found.layers if layer.name in spikes} == spikes
