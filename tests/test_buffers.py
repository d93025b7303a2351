"""Memory that serves one layer after the other: nothing is written over that somebody still holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import Drawn, networks, recurrent_networks
from test_networks import assert_same, simulate

from eventsim import buffers
from eventsim.buffers import SMALL, Buffers

pytestmark = pytest.mark.kernels

MUCH = 2 * SMALL


def test_a_block_is_used_again_once_nothing_is_left_of_it() -> None:
    room = Buffers()
    first = room.floats(MUCH)
    place, view = first.ctypes.data, first.reshape(2, -1)[1:, ::2]
    assert first.dtype == np.float32
    second = room.floats(MUCH)
    assert not np.shares_memory(first, second)
    del first
    assert not np.shares_memory(view, room.floats(MUCH)), "a view of a view is left"
    del view
    again = room.indices(MUCH - 3)
    assert (again.ctypes.data, again.dtype, again.shape) == (place, np.int32, (MUCH - 3,))


def test_the_smallest_block_that_is_large_enough_is_taken() -> None:
    room = Buffers()
    places = {}
    held = [room.floats(size * MUCH) for size in (4, 2, 3)]
    for size, each in zip((4, 2, 3), held, strict=True):
        places[size] = each.ctypes.data
    del held, each
    assert room.floats(2 * MUCH + 1).ctypes.data == places[3]
    assert room.floats(MUCH).ctypes.data == places[2]
    more = room.floats(5 * MUCH)
    assert more.shape == (5 * MUCH,)


def test_what_is_small_is_new() -> None:
    room = Buffers()
    for count in (0, 1, SMALL):
        assert room.floats(count).shape == (count,)
        assert room.floats(count).base is None


def test_what_is_large_begins_on_a_cache_line() -> None:
    room = Buffers()
    for count in (SMALL + 1, MUCH, MUCH - 7):  # the last is used again
        for block in (room.floats(count), room.indices(count)):
            assert block.shape == (count,)
            assert block.ctypes.data % 64 == 0


class Spoiling(Buffers):
    """Takes blocks for everything, and writes over what was in one before it is given again."""

    def floats(self, count: int) -> np.ndarray:
        room = super().floats(count)
        room[:] = np.nan
        return room


@given(drawn=networks() | recurrent_networks(), data=st.data())
def test_no_layer_reads_what_was_written_over(drawn: Drawn, data: st.DataObject) -> None:
    chunk = data.draw(st.integers(1, len(drawn.frames)))
    image = drawn.frames[0]
    expected = simulate(drawn), simulate(drawn, image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buffers, "SMALL", -1)
        patch.setattr("eventsim.run.Buffers", Spoiling)
        assert_same(simulate(drawn), expected[0])
        assert_same(simulate(drawn, chunk=chunk), expected[0])
        assert_same(simulate(drawn, image), expected[1])
