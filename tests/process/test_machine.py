"""The figures of a process and its machine, from files as Linux writes them."""

from pathlib import Path

import pytest

from sandbox.serving import Clock
from tollgate.process import machine
from tollgate.process.machine import Counters, Machine

FILES = {
    "meminfo": "MemTotal:  4000 kB\nMemFree:  1 kB\nMemAvailable:  1000 kB\n",
    "self/status": "Name:\tpython\nVmRSS:\t  500 kB\n",
    "stat": "cpu  10 0 10 70 10 0 0 0 5 0\ncpu0 1 1 1 1\n",
    "net/dev": "Inter-| Receive\n face |bytes\n  lo: 9 0 0 0 0 0 0 0 9 0\neth0:1000 1 0 0 0 0 0 0 500 1 0 0 0 0 0 0\n",
    "1/cgroup": "0::/system.slice/containerd.service\n",
}


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_sample_has_the_rates_since_the_one_before(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_of_cgroup", lambda: (None, None))
    clock = Clock()
    here = Machine({"DYNO": "web.1"}, clock, kind="heroku", proc=proc)
    first = here.taken()
    assert (first["memory_total_bytes"], first["memory_used_bytes"]) == (4000 * 1024, 3000 * 1024)
    assert (first["process_memory_bytes"], first["cpu_percent"]) == (500 * 1024, None)
    assert not here.is_due()
    clock.now += 61.0
    (proc / "stat").write_text("cpu  30 0 20 120 10 0 0 0 5 0\n")
    (proc / "net/dev").write_text(FILES["net/dev"].replace("eth0:1000", "eth0:7100"))
    assert here.is_due()
    later = here.taken()
    assert (later["cpu_percent"], later["network_received_bps"], later["network_sent_bps"]) == (37.5, 800, 0)
    assert here.name.startswith("web.1:")


def test_a_function_has_the_memory_that_its_host_gives_it(proc: Path) -> None:
    here = Machine({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512"}, lambda: 0.0, kind="lambda", proc=proc)
    seen = here.seen()
    assert (seen["memory_total_bytes"], seen["memory_used_bytes"]) == (512 * 1024**2, 500 * 1024)
    assert (seen["memory_source"], "loop_delay_ms" in seen) == ("function", False)
    assert (here.abilities()["is_container"], here.abilities()["memory_limit_bytes"]) == (True, 512 * 1024**2)


def test_a_disk_that_is_gone_is_left_out(tmp_path: Path) -> None:
    here = Machine({}, lambda: 0.0, kind="server", disk=tmp_path, proc=tmp_path)
    tmp_path.rmdir()
    assert "disk_total_bytes" not in here.taken()


def test_what_a_system_does_not_say_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_of_cgroup", lambda: (None, None))
    seen = Machine({}, lambda: 0.0, kind="server", proc=tmp_path).seen()
    assert "memory_total_bytes" not in seen
    assert seen["cpu_percent"] is None
    assert seen["disk_total_bytes"] > 0


def test_rates_are_between_two_readings_and_a_counter_that_was_set_back_says_nothing() -> None:
    before, now = Counters(30, 70, 1000, 500, 0, 2.0), Counters(60, 80, 3000, 400, 10, 2.5)
    assert machine.rates(None, now)["cpu_percent"] is None
    assert machine.rates(before, now) == {
        "cpu_percent": 75.0,
        "process_cpu_percent": 5.0,
        "network_received_bps": 1600,
        "network_sent_bps": None,
    }


def test_the_memory_limit_of_a_container_counts(tmp_path: Path) -> None:
    assert machine.memory_of_cgroup(tmp_path) == (None, None)
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory_of_cgroup(tmp_path) == (None, None)
    (tmp_path / "memory.max").write_text("2000\n")
    (tmp_path / "memory.current").write_text("500\n")
    assert machine.memory_of_cgroup(tmp_path) == (2000, 500)
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 300\n")
    assert machine.memory_of_cgroup(tmp_path) == (2000, 200), "the kernel can give cached files back"
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert machine.cpus_of_cgroup(tmp_path) == 1.5
