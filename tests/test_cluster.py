"""Evaluation on a Dask cluster of two processes: the same outcomes, whatever becomes of the workers."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eventsim import EventsimError, InputError, Network, Preparation, Simulator, save
from eventsim.cli import main
from eventsim.cli.commands import evaluating
from eventsim.datasets import (
    Evaluation,
    Outcome,
    Sample,
    absent_workers,
    evaluate,
    labelled_arrays,
    labelled_by,
    labelled_files,
)
from eventsim.dvs import EVENT_DTYPE

distributed = pytest.importorskip("distributed", reason="needs distributed: pip install 'eventsim[cluster]'")
cluster = pytest.importorskip("eventsim.datasets.cluster")

TIMES = ("latency_s", "binning_s", "reading_s", "comparable")
HEARING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
os.execv(sys.argv[1], sys.argv[1:])
"""
LOSING = """
import os, signal, sys
from eventsim.cli import main
from eventsim.cli.commands import evaluating
from eventsim.datasets import cluster, evaluate
cluster.PATIENCE_S = 3.0

def losing(*given, **options):
    for number, outcome in enumerate(evaluate(*given, **options)):
        yield outcome
        if number == 15:
            os.kill(int(sys.argv[1]), signal.SIGKILL)

evaluating.evaluate = losing
sys.exit(main(sys.argv[2:]))
"""
pytestmark = pytest.mark.filterwarnings("ignore")  # of Dask, about what it starts and stops


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with cluster.connected("local", 2) as client:
        yield client


@pytest.fixture
def doomed() -> Iterator[Any]:
    """A cluster whose workers are killed."""
    with cluster.connected("local", 2) as client:
        yield client


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Sample]:
    """Thirty samples of three classes, one damaged, named from the working directory, which workers do not share."""
    rng = np.random.default_rng(0)
    for label in range(3):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
        for index in range(10):
            np.save(tmp_path / "data" / str(label) / f"{index}.npy", rng.integers(0, 3, (4, 2, 6, 6)))
    (tmp_path / "data" / "1" / "3.npy").write_bytes(b"nothing")
    monkeypatch.chdir(tmp_path)
    return labelled_files("data")


def compared(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Return what does not depend on the machine, in order of the samples; by rows, which hold everything."""
    rows = [outcome.row() for outcome in sorted(outcomes, key=lambda outcome: outcome.sample.index)]
    for row in rows:
        for key in (*TIMES, "latency_comparable"):
            row.pop(key, None)
    return rows


def pids(client: Any) -> dict[str, int]:
    return dict(client.run(os.getpid))


def test_a_cluster_says_what_this_process_says(client: Any, small_network: Network, data: list[Sample]) -> None:
    simulator = Simulator(small_network)
    here = list(evaluate(simulator, data, Preparation()))
    there = list(evaluate(simulator, data, Preparation(), client=client))
    assert compared(there) == compared(here)
    assert sum(outcome.error is not None for outcome in there) == 1
    assert [outcome.sample for outcome in sorted(there, key=lambda o: o.sample.index)] == data
    assert all(outcome.comparable for outcome in here)
    assert not any(outcome.comparable for outcome in there)


def test_arrays_travel(client: Any, small_network: Network, data: list[Sample], tmp_path: Path) -> None:
    """Those in memory with their samples, those of a file by its name."""
    frames, labels = np.random.default_rng(1).integers(0, 3, (6, 4, 2, 6, 6)), np.arange(6) % 3
    np.save(tmp_path / "x.npy", frames)
    simulator = Simulator(small_network)
    for given in (frames, "x.npy"):
        samples = labelled_arrays(given, labels)
        here = list(evaluate(simulator, samples, Preparation()))
        assert compared(list(evaluate(simulator, samples, Preparation(), client=client))) == compared(here)


def test_parts_of_recordings_travel(client: Any, small_network: Network, data: list[Sample], tmp_path: Path) -> None:
    """From a working directory that workers do not share, with what was met in them."""
    events = np.zeros(40, EVENT_DTYPE)
    events["t"], events["x"] = 10 * np.arange(40), np.arange(40) % 6
    events["t"][[5, 25, 31]] -= 15
    np.save(tmp_path / "led.npy", events)
    (tmp_path / "led.csv").write_text("label,start_us,end_us\n0,0,200\n1,200,400\n2,0,400\n0,900,990\n")
    samples = labelled_by("led.npy", "led.csv")
    preparation = Preparation(sensor_size=(6, 6), window="time", disorder="drop")
    here, there = Evaluation(), Evaluation()
    for outcome in evaluate(Simulator(small_network), samples, preparation):
        here.take(outcome)
    for outcome in sorted(
        evaluate(Simulator(small_network), samples, preparation, client=client), key=lambda each: -each.sample.index
    ):
        there.take(outcome)
    assert there.defects == here.defects
    assert there.failed == here.failed
    assert here.failed[0].error.startswith("led.npy: holds no events from 900 us")
    assert [each.defects.dropped for each in here.met] == [1, 2, 3]
    assert (there.totals, sorted(there.predictions)) == (here.totals, here.predictions)


def test_the_network_travels_once_to_each_worker(client: Any, small_network: Network, data: list[Sample]) -> None:
    """Tasks hold samples alone; a worker unpickles the network once, and lets go of it at the end."""
    submitted: list[int] = []
    submit = client.submit

    def spy(*arguments: Any, **options: Any) -> Any:
        submitted.append(len(distributed.protocol.dumps([arguments])[-1]))
        return submit(*arguments, **options)

    def loads(dask_worker: Any) -> int:
        import eventsim.datasets.cluster as module

        before = module.pickle.loads
        if not hasattr(module, "loaded"):
            module.loaded = []
            module.pickle = type("pickle", (), {"loads": lambda data: (module.loaded.append(1), before(data))[1]})
        return len(module.loaded)

    client.run(loads)
    client.submit = spy
    try:
        found = list(evaluate(Simulator(small_network), data * 4, Preparation(), client=client))
    finally:
        client.submit = submit
    assert len(found) == 120
    assert list(client.run(loads).values()) == [1, 1]
    weights = sum(array.nbytes for layer in small_network.layers.values() for array in layer.arrays().values())
    assert max(submitted) < weights
    plugins = client.run(lambda dask_worker: [name for name in dask_worker.plugins if name.startswith("eventsim")])
    assert not any(plugins.values())


def test_the_samples_of_a_worker_that_is_killed_run_again(
    doomed: Any, small_network: Network, data: list[Sample]
) -> None:
    """Those that it had been given, and those that were done and not fetched."""

    class Slow(distributed.WorkerPlugin):  # type: ignore[misc]
        def setup(self, worker: Any) -> None:
            import eventsim.datasets.cluster as module

            fast = module.outcome
            module.outcome = lambda *given: (time.sleep(0.05), fast(*given))[1]

    simulator = Simulator(small_network)
    many = [dataclasses.replace(sample, index=n) for n, sample in enumerate(data * 3)]
    here = list(evaluate(simulator, many, Preparation()))
    doomed.register_plugin(Slow(), name="slow")
    before = pids(doomed)
    found, given = [], ()
    try:
        for outcome in evaluate(simulator, many, Preparation(), client=doomed):
            found.append(outcome)
            if len(found) >= 10 and not given:
                victim, pid = sorted(before.items())[0]
                if given := doomed.processing()[victim]:
                    os.kill(pid, signal.SIGKILL)
    finally:
        doomed.unregister_worker_plugin("slow")
    assert given
    assert compared(found) == compared(here)


def test_a_sample_that_kills_every_worker_is_an_error(doomed: Any, small_network: Network, data: list[Sample]) -> None:
    """And no other is, though some waited on the workers that died."""

    class Deadly(distributed.WorkerPlugin):  # type: ignore[misc]
        def setup(self, worker: Any) -> None:
            import eventsim.datasets.cluster as module

            harmless = module.outcome
            module.outcome = lambda simulator, sample, *more: (
                os._exit(1) if sample.index == 5 else harmless(simulator, sample, *more)
            )

    doomed.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 0))
    doomed.register_plugin(Deadly(), name="deadly")
    try:
        found = list(evaluate(Simulator(small_network), data[:12], Preparation(), client=doomed))
    finally:
        doomed.unregister_worker_plugin("deadly")
        doomed.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 3))
    assert {outcome.sample.index: outcome.error for outcome in found} == {
        index: f"{data[5].name}: 2 workers died of it; expected one to survive" if index == 5 else None
        for index in range(12)
    }


def test_a_worker_with_another_eventsim_is_refused(
    client: Any, small_network: Network, data: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    client.wait_for_workers(2, timeout=60)
    monkeypatch.setattr("eventsim.__version__", "0.0")
    with pytest.raises(InputError, match=r"^worker tcp://\S+: eventsim \d\S+ found; expected 0\.0$"):
        list(evaluate(Simulator(small_network), data, Preparation(), client=client))


def test_a_bug_is_not_taken_for_a_bad_file(
    client: Any, small_network: Network, data: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "elsewhere", lambda sample: 3)
    with pytest.raises(AttributeError, match="has no attribute"):
        list(evaluate(Simulator(small_network), data, Preparation(), client=client))


def test_the_command(client: Any, small_network: Network, data: list[Sample], capsys: Any) -> None:
    """By the address of a cluster; rows go on there, and are told from those of one machine."""
    save(small_network, "m.h5")
    client.wait_for_workers(2, timeout=60)
    address = client.scheduler.address

    def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
        code = main(["evaluate", "m.h5", "data", *arguments, "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out), err

    options = ("--cluster", address, "--rows", "rows.jsonl", "--resume")
    assert run(*options, "--limit", "12")[1]["samples"] == 12
    _, one, said = run()
    code, document, err = run(*options, "--limit", "30")
    assert (code, err, err.count("\n")) == (1, said, 1)  # of the file that is damaged
    assert document["latency_comparable"] is False
    for each in (one, document):
        for key in (*TIMES, "compile_s", "provenance", "latency_comparable"):
            each.pop(key, None)
    assert document == one
    code, document, err = run("--rows", "rows.jsonl", "--resume")
    assert code == 2
    assert "rows of another run: cluster true found, false expected" in err
    assert main(["evaluate", "m.h5", "data", "--cluster", address]) == 1
    assert "of a cluster: not comparable" in capsys.readouterr().out


def test_a_cluster_that_does_not_answer(small_network: Network, data: list[Sample], monkeypatch: Any) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_S", 1.0)
    with pytest.raises(InputError, match=r"^cluster tcp://127.0.0.1:9: no scheduler answers"):
        cluster.connected("tcp://127.0.0.1:9", 1).__enter__()
    for address in ("nonsense", "foo://127.0.0.1:9", "tls://127.0.0.1:9", "", "inproc://x"):
        said = (
            rf"^cluster {address}: no scheduler answers \(.*\); expected the address of one, such as tcp://HOST:8786$"
        )
        with pytest.raises(InputError, match=said):
            cluster.connected(address, 1).__enter__()
    with (
        cluster.connected("local", 0) as client,
        pytest.raises(InputError, match="no workers found in 1 s; start some"),
    ):
        list(evaluate(Simulator(small_network), data, Preparation(), client=client))


def test_a_cluster_that_is_waited_for_is_named(
    small_network: Network, data: list[Sample], monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    save(small_network, "m.h5")
    monkeypatch.setattr(cluster, "PATIENCE_S", 1.0)
    monkeypatch.setattr(evaluating, "SILENCE_S", 0.01)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        assert main(["evaluate", "m.h5", "data", "--cluster", address]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"eventsim: waiting for the cluster {address}"
    assert said[1].startswith(f"eventsim: cluster {address}: no scheduler answers")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(8), b""])
def test_a_server_that_is_no_scheduler(answer: bytes, monkeypatch: Any) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            accepted, _ = server.accept()
            with accepted:
                accepted.recv(1000)
                accepted.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match=f"^cluster {address}: no scheduler answers"):
            cluster.connected(address, 1).__enter__()


def test_an_address_that_is_none_is_one_line(small_network: Network, data: list[Sample]) -> None:
    """A client that could not be made prints a traceback when Python ends."""
    save(small_network, "m.h5")
    command = [sys.executable, "-m", "eventsim", "evaluate", "m.h5", "data", "--cluster", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("eventsim: cluster nonsense: no scheduler answers")
    assert [line for line in done.stderr.splitlines() if not line.startswith("eventsim: ")] == []


def test_an_interruption_while_workers_start_is_one_line(small_network: Network, data: list[Sample]) -> None:
    """A terminal sends it to them, too, which are importing, and what is interrupted half started cannot be closed."""
    psutil = pytest.importorskip("psutil")
    save(small_network, "m.h5")
    command = [sys.executable, "-m", "eventsim", "evaluate", "m.h5", "data", "--cluster", "local", "--threads", "2"]
    heard = subprocess.Popen(
        [sys.executable, "-c", HEARING, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until, starting = time.monotonic() + 60, False
    while not starting and time.monotonic() < until and heard.poll() is None:
        with contextlib.suppress(psutil.Error):
            below = psutil.Process(heard.pid).children(recursive=True)
            starting = any("spawn_main" in " ".join(each.cmdline()) for each in below)
        time.sleep(0.01)
    os.killpg(heard.pid, signal.SIGINT)
    _, err = heard.communicate(timeout=100)
    assert starting
    said = [line for line in err.splitlines() if "waiting for the cluster" not in line]
    assert said == ["eventsim: interrupted after 0 of 30 samples"]
    assert heard.returncode == 130


def test_what_dask_leaves_where_it_was_interrupted_is_not_printed() -> None:
    """By asyncio, which knows of no handlers of Dask."""
    log = logging.getLogger("asyncio")
    before = log.level
    log.setLevel(logging.WARNING)  # another client may be there
    try:
        with cluster.connected("local", 0):
            assert not log.isEnabledFor(logging.CRITICAL)
        assert log.level == logging.WARNING
    finally:
        log.setLevel(before)


def test_a_scheduler_that_is_killed_is_one_line(small_network: Network, data: list[Sample]) -> None:
    """Of ours; Dask says nothing, and what was computed is printed."""
    save(small_network, "m.h5")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    port = address.rpartition(":")[2]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny"]
    processes = [subprocess.Popen([*dask, "--no-dashboard"], **quiet), subprocess.Popen(worker, **quiet)]
    try:
        command = [sys.executable, "-c", LOSING, str(processes[0].pid)]
        command += ["evaluate", "m.h5", "data", "--cluster", address, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    finally:
        for each in processes:
            each.kill()
            each.wait()
    said = [line for line in done.stderr.splitlines() if "waiting for" not in line]
    assert len(said) == 2  # of the damaged file, too
    assert said[0].startswith(f"eventsim: cluster {address}: its scheduler is lost (")
    taken = json.loads(done.stdout)
    count = taken["samples"] + len(taken["failed"])
    assert said[0].endswith(f"; start it again; results are those of {count} of 30 samples")
    assert 16 <= count < 30
    assert done.returncode == 1


def test_a_result_counts_whose_worker_left_after_it_was_fetched(
    client: Any, small_network: Network, data: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Leaving(cluster.as_completed):  # type: ignore[misc]
        def __next__(self) -> Any:
            future, result = super().__next__()
            future._state.lose()
            return future, result

    monkeypatch.setattr(cluster, "as_completed", Leaving)
    simulator = Simulator(small_network)
    found = list(evaluate(simulator, data[:5], Preparation(), client=client))
    assert compared(found) == compared(list(evaluate(simulator, data[:5], Preparation())))


def test_workers_that_are_away_are_told(
    small_network: Network, data: list[Sample], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, and once more when it goes on."""
    monkeypatch.setattr(absent_workers, "LOOK_S", 0.05)
    monkeypatch.setattr(absent_workers, "SILENCE_S", 0.3)
    simulator, found = Simulator(small_network), []
    with cluster.connected("local", 1) as client:
        for outcome in evaluate(simulator, data, Preparation(), client=client):
            found.append(outcome)
            if len(found) == 1:
                client.cluster.scale(0)
                while client.nthreads():
                    time.sleep(0.01)
                threading.Timer(2.0, client.cluster.scale, [1]).start()
        address = client.scheduler.address
    assert compared(found) == compared(list(evaluate(simulator, data, Preparation())))
    assert [each.getMessage() for each in caplog.records if each.name == "eventsim"] == [
        f"eventsim: cluster {address}: no workers are there; waiting for some",
        f"eventsim: cluster {address}: goes on",
    ]


def test_workers_of_this_machine_leave_to_it_what_is_said_once(client: Any) -> None:
    def enabled() -> bool:
        return logging.getLogger("eventsim").isEnabledFor(logging.WARNING)

    assert set(client.run(enabled).values()) == {False}
    assert enabled()


def test_a_scheduler_that_is_lost(small_network: Network, data: list[Sample]) -> None:
    with cluster.connected("local", 1) as client:
        outcomes = evaluate(Simulator(small_network), data * 20, Preparation(), client=client)
        next(outcomes)
        client.cluster.close()
        with pytest.raises(EventsimError, match="lost"):
            list(outcomes)
