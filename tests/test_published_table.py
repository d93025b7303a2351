"""The table of published numbers, which the documentation shows as the example prints it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch_oracle

published_numbers = torch_oracle.example("published_numbers")

PAGE = Path(__file__).parents[1] / "docs" / "papers" / "numbers.md"


def test_the_page_is_what_the_example_prints() -> None:
    assert published_numbers.page() + "\n" == PAGE.read_text()


def test_whatever_differs_is_explained() -> None:
    rows = published_numbers.rows()
    assert {row.paper for row in rows} == {"Spikformer V2", "DS2TA", "Spikeformer", "STAA-SNN"}
    assert [row.what for row in rows if not row.equal and not row.note] == []


@pytest.mark.parametrize(
    ("printed", "computed", "equal"), [("9.32", 9.3249, True), ("9.32", 9.3251, False), ("77", 78.7, False)]
)
def test_a_number_is_equal_if_it_rounds_to_what_is_printed(printed: str, computed: float, equal: bool) -> None:
    assert published_numbers.Row("", "", "", printed, computed).equal is equal
