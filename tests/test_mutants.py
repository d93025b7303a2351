"""A short mutation run, and that it finds what it is made to find; ``nox -s mutants`` runs 20,000 inputs."""

import mutants
import pytest


def test_damaged_files_are_read_or_refused_within_bounds():
    said = mutants.run(420, seed=3)
    read, refused = (int(part.split()[0]) for part in said.split(": ")[1].split(", ")[:2])
    assert read + refused == 420 and min(read, refused) > 40


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("raise InputError('no path')", "refused with 'no path'"),
        ("import os; os.write(2, b'thread panicked')", "printed at input"),
        ("import os; os.abort()", "exit -6 at input"),
        ("bytearray(3 << 30)", "MemoryError"),
    ],
)
def test_a_faulty_reader_is_found(tmp_path, monkeypatch, fault, found):
    (tmp_path / "sitecustomize.py").write_text(
        "import resource\n"
        "import numpy\n"
        "from eventsim.dvs.formats.nmnist import NmnistRecording\n"
        "from eventsim.errors import InputError\n"
        "decode = NmnistRecording._decode\n"
        "def faulty(self, block_events):\n"
        "    if resource.getrlimit(resource.RLIMIT_AS)[0] > 0:\n"
        f"        {fault}\n"
        "    yield from decode(self, block_events)\n"
        "NmnistRecording._decode = faulty\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    with pytest.raises(AssertionError, match=found):
        mutants.run(60)
