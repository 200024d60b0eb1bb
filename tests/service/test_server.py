"""The service as its clients see it: real server processes, dispatchers that hang, crash and talk too much."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from pvedrbdstor.errors import Error
from pvedrbdstor.service.limits import Limits
from pvedrbdstor.service.server import serve
from tests.backend import PATIENCE, Backend, read_response, request_line, start_backend
from tests.service.fakes import Fake, Gates

Start = Callable[..., Backend]
HA = {"id": "ha"}
LOCAL = {"id": "local"}


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    gates = Gates(tmp_path)
    for name in ("started", "gate", "other gate", "gone", "later", "done"):
        gates.make(name)
    return gates


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a backend with the given limits; when the test is over it must end well and leave no process behind."""
    with ExitStack() as running:

        def started(by_systemd: bool = False, prepare: Callable[[], None] | None = None, **limits: float) -> Backend:
            backend = running.enter_context(
                start_backend(tmp_path, lambda: Fake(tmp_path), Limits(**limits), prepare, by_systemd)  # type: ignore[arg-type]
            )
            running.callback(_ends_well, backend)
            return backend

        yield started


def _ends_well(backend: Backend) -> None:
    children = workers(backend) if os.path.exists(f"/proc/{backend.pid}") else []
    assert backend.stop() == 0, backend.log.read_text()
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children))


def eventually(condition: Callable[[], bool]) -> None:
    """For what nothing announces: the state of other processes."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def workers(backend: Backend) -> list[int]:
    """The server's children, zombies among them."""
    return [int(pid) for pid in Path(f"/proc/{backend.pid}/task/{backend.pid}/children").read_text().split()]


def descriptors(backend: Backend) -> int:
    return len(os.listdir(f"/proc/{backend.pid}/fd"))


def result(response: dict[str, object]) -> object:
    assert "result" in response, response
    return response["result"]


def kind(response: dict[str, object]) -> str:
    error = response["error"]
    assert isinstance(error, dict)
    return str(error["data"]["kind"])


# --- requests and answers ---


def test_a_method_is_called_with_what_was_sent_and_its_result_comes_back(start: Start) -> None:
    answer = result(start().call("echo", storage=HA, timeout=7, vmid=100))
    assert isinstance(answer, dict)
    assert answer["params"] == {"storage": HA, "vmid": 100}
    assert (answer["timeout"], answer["storage"]) == (7.0, "ha")


def test_an_error_of_the_method_comes_back_as_an_error_object(start: Start) -> None:
    response = start().call("fail")
    assert kind(response) == "VolumeMissing" and response["id"] == 1


def test_an_unknown_method_is_not_found(start: Start) -> None:
    error = start().call("no_such_method")["error"]
    assert isinstance(error, dict) and error["code"] == -32601


@pytest.mark.parametrize("method", ["bug", "unserialisable"])
def test_a_bug_is_answered_logged_and_survived(start: Start, method: str) -> None:
    backend = start()
    before = workers(backend)
    assert kind(backend.call(method)) == "InternalError"
    assert "Traceback" in backend.log.read_text()
    assert workers(backend) == before


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\n", -32700),
        (b"GET / HTTP/1.1\r\n\r\n", -32700),
        (bytes(range(11, 256)) + b"\n", -32700),
        (b"[" * 100_000 + b"\n", -32700),
        (b"{}\n", -32600),
        (b"x" * (2 << 20), -32600),
        (b"x" * (2 << 20) + b"\n", -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"echo","params":[]}\n', -32602),
    ],
    ids=["empty", "http", "binary", "deep", "no-members", "endless", "huge", "positional"],
)
def test_what_is_no_request_gets_one_clear_error(start: Start, data: bytes, code: int) -> None:
    backend = start()
    client = backend.connect()
    client.sendall(data)
    error = read_response(client)["error"]
    assert isinstance(error, dict) and error["code"] == code
    assert kind(backend.call("fail")) == "VolumeMissing"


def test_a_request_cut_off_by_a_half_close_is_refused(start: Start) -> None:
    client = start().connect()
    client.sendall(request_line("echo").rstrip())
    client.shutdown(socket.SHUT_WR)
    assert kind(read_response(client)) == "InvalidRequest"


def test_a_client_that_half_closes_after_its_request_still_gets_the_answer(start: Start, gates: Gates) -> None:
    client = start().send("gate", started="started", gate="gate")
    client.shutdown(socket.SHUT_WR)
    gates.wait("started")
    gates.open("gate", "still here")
    assert result(read_response(client)) == "still here"


def test_whatever_follows_the_request_is_thrown_away(start: Start, gates: Gates) -> None:
    client = start().send("gate", started="started", gate="gate")
    gates.wait("started")
    client.sendall(b"x" * 1_000_000)
    gates.open("gate", "one answer")
    assert result(read_response(client)) == "one answer"


def test_a_response_of_thirty_mebibytes_arrives_whole(start: Start) -> None:
    assert result(start().call("huge", size=30 << 20)) == "x" * (30 << 20)


def test_a_request_of_nearly_a_mebibyte_arrives_whole(start: Start) -> None:
    answer = result(start().call("echo", blob="y" * 1_000_000))
    assert isinstance(answer, dict) and answer["params"] == {"blob": "y" * 1_000_000}


def test_an_empty_call_takes_less_than_five_milliseconds(start: Start) -> None:
    backend = start()
    took = []
    for _ in range(50):
        began = time.perf_counter()
        backend.call("echo")
        took.append(time.perf_counter() - began)
    assert min(took) < 0.005


# --- clients that misbehave ---


def test_slow_senders_and_readers_are_cut_off_and_hold_nobody_up(start: Start) -> None:
    backend = start(read=0.3, write=0.3)
    silent, slow, deaf = backend.connect(), backend.connect(), backend.send("huge", size=8 << 20)
    slow.sendall(b'{"json')
    result(backend.call("echo"))
    assert kind(read_response(silent)) == "InvalidRequest"
    assert kind(read_response(slow)) == "InvalidRequest"
    hung_up = select.poll()
    hung_up.register(deaf, 0)
    assert hung_up.poll(PATIENCE * 1000), "the server still waits for a client that does not read"
    deaf.close()


def test_more_connections_than_allowed_wait_until_others_close(start: Start) -> None:
    backend = start(connections=2)
    idle = [backend.connect(), backend.connect()]
    third = backend.send("echo")
    third.settimeout(0.1)
    with pytest.raises(TimeoutError):
        third.recv(1)
    third.settimeout(PATIENCE)
    idle[0].close()
    result(read_response(third))
    idle[1].close()


def test_other_users_are_refused(start: Start, tmp_path: Path) -> None:
    backend = start()
    os.chmod(backend.socket_path, 0o666)
    os.chmod(tmp_path, 0o755)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.setuid(65534)
        client = socket.socket(socket.AF_UNIX)
        client.connect("backend.sock")
        client.sendall(request_line("echo"))
        os.write(writing, client.recv(1000))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert b"user 65534 may not" in pipe.read()
    os.waitpid(child, 0)


def test_a_worker_learns_that_its_caller_hung_up(start: Start, gates: Gates) -> None:
    backend = start()
    client = backend.send("until_gone")
    gates.wait("started")
    client.close()
    assert gates.wait("gone") == "False True"
    before = workers(backend)
    assert isinstance(result(backend.call("echo")), dict)
    assert workers(backend) == before, "the worker serves on"


def test_a_call_after_one_whose_caller_hung_up_has_its_own_caller(start: Start, gates: Gates) -> None:
    backend = start(idle_workers=1, storage_busy=1)
    for _ in range(3):
        client = backend.send("until_gone")
        gates.wait("started")
        client.close()
        assert gates.wait("gone") == "False True"


# --- deadlines and hung workers ---


def test_a_deadline_is_answered_in_time_and_the_late_answer_thrown_away(start: Start, gates: Gates) -> None:
    backend = start()
    began = time.monotonic()
    assert kind(backend.call("gate", gate="gate", storage=HA, timeout=0.2)) == "DeadlineExceeded"
    assert 0.2 <= time.monotonic() - began < 1, "50 ms late at most, and room for a busy machine"
    gates.open("gate", "too late")
    assert isinstance(result(backend.call("echo", storage=HA)), dict)


def test_a_second_call_is_served_while_one_hangs(start: Start, gates: Gates) -> None:
    backend = start()
    first = backend.send("gate", started="started", gate="gate", storage=HA)
    gates.wait("started")
    assert isinstance(result(backend.call("echo", storage=HA)), dict)
    gates.open("gate", "done")
    assert result(read_response(first)) == "done"


def test_hung_calls_are_counted_by_storage_and_forgotten_when_they_end(start: Start, gates: Gates) -> None:
    backend = start(storage_busy=2, storage_hung=2)
    hanging = [backend.send("gate", gate=gate, storage=HA, timeout=0.2) for gate in ("gate", "other gate")]
    waiting = backend.send("echo", storage=HA, timeout=20)
    assert [kind(read_response(client)) for client in hanging] == ["DeadlineExceeded"] * 2
    assert kind(read_response(waiting)) == "TooBusy", "nothing waits behind calls that all hang"
    refused = backend.call("echo", storage=HA)
    assert kind(refused) == "TooBusy" and "2 calls to storage 'ha'" in json.dumps(refused)
    assert isinstance(result(backend.call("echo", storage=LOCAL)), dict), "another storage is not affected"
    gates.open("gate")
    eventually(lambda: "result" in backend.call("echo", storage=HA))
    gates.open("other gate")
    eventually(lambda: len(workers(backend)) <= 3)


def test_calls_beyond_the_workers_wait_and_are_served_in_turn(start: Start, gates: Gates) -> None:
    backend = start(storage_busy=1)
    first = backend.send("gate", started="started", gate="gate", storage=HA)
    gates.wait("started")
    second = backend.send("echo", storage=HA)
    assert kind(backend.call("echo", storage=HA, timeout=0.1)) == "DeadlineExceeded", "waiting has a deadline, too"
    gates.open("gate", "first")
    assert result(read_response(first)) == "first"
    assert isinstance(result(read_response(second)), dict)


def test_a_waiting_call_whose_caller_hangs_up_is_never_started(start: Start, gates: Gates) -> None:
    backend = start(storage_busy=1)
    first = backend.send("gate", started="started", gate="gate", storage=HA)
    gates.wait("started")
    backend.send("die", storage=HA).close()
    result(backend.call("echo", storage=LOCAL))
    gates.open("gate", "first")
    assert result(read_response(first)) == "first"
    result(backend.call("echo", storage=HA))
    assert "SIGKILL" not in backend.log.read_text()


def test_long_calls_that_work_shut_no_other_call_out_of_their_storage(start: Start, gates: Gates) -> None:
    backend = start()
    long = [backend.send("until_opened", gate="gate", storage=HA, timeout=1800) for _ in range(24)]
    short = backend.call("echo", storage=HA, timeout=1.8)
    assert isinstance(result(short), dict), "'status' asks with such a deadline"
    eventually(lambda: len(gates.files("running.")) == 6)
    gates.release("gate")
    assert [result(read_response(client)) for client in long] == [None] * 24


def test_long_calls_whose_callers_hung_up_make_room_for_those_that_wait(start: Start, gates: Gates) -> None:
    backend = start(storage_long=1)
    first = backend.send("until_opened", gate="gate", storage=HA, timeout=1800)
    eventually(lambda: len(gates.files("running.")) == 1)
    second = backend.send("until_opened", gate="gate", storage=HA, timeout=1800)
    first.close()
    eventually(lambda: len(gates.files("running.")) == 2)
    gates.release("gate")
    assert result(read_response(second)) is None


# --- workers ---


def test_a_worker_that_dies_is_answered_for_and_replaced(start: Start) -> None:
    backend = start()
    before = workers(backend)
    response = backend.call("die")
    assert kind(response) == "InternalError" and "SIGKILL" in json.dumps(response)
    assert isinstance(result(backend.call("echo")), dict)
    assert len(workers(backend)) == 2 and workers(backend) != before


def test_an_idle_worker_that_is_killed_is_replaced(start: Start) -> None:
    backend = start()
    before = workers(backend)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(workers(backend)) == 2 and not set(before) & set(workers(backend)))
    assert isinstance(result(backend.call("echo")), dict)


def test_workers_are_replaced_after_their_share_of_calls(start: Start) -> None:
    backend = start(recycle=3)
    pids = set()
    for _ in range(12):
        answer = result(backend.call("echo"))
        assert isinstance(answer, dict)
        pids.add(answer["pid"])
    assert len(pids) >= 3
    eventually(lambda: len(workers(backend)) == 2)


def test_what_is_left_for_later_runs_after_the_answer_and_holds_nobody_up(start: Start, gates: Gates) -> None:
    backend = start(storage_busy=1)
    worker = result(backend.call("later", storage=HA))
    answer = result(backend.call("echo", storage=HA))
    assert isinstance(answer, dict) and answer["pid"] != worker
    gates.open("later", "cleared up")
    assert gates.wait("done") == "cleared up"
    assert "ZeroDivisionError" in backend.log.read_text()


def test_a_worker_has_nothing_of_the_server_or_other_clients_open(start: Start, gates: Gates) -> None:
    backend = start()
    others = [backend.connect() for _ in range(5)]
    busy = backend.send("gate", started="started", gate="gate")
    gates.wait("started")
    answer = result(backend.call("inspect"))
    assert isinstance(answer, list)
    assert len([name for name in answer if name.startswith("socket:")]) == 1, answer
    assert not [name for name in answer if "eventpoll" in name or "pidfd" in name], answer
    gates.open("gate")
    result(read_response(busy))
    for client in others:
        client.close()


def test_two_hundred_calls_at_once_are_all_answered_and_leave_nothing_behind(start: Start) -> None:
    backend = start()
    result(backend.call("echo"))
    eventually(lambda: len(workers(backend)) == 2)
    before = descriptors(backend)
    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda n: result(backend.call("echo", n=n, storage=HA)), range(200)))
    assert [answer["params"]["n"] for answer in answers] == list(range(200))  # type: ignore[index]
    eventually(lambda: len(workers(backend)) <= 4)
    eventually(lambda: descriptors(backend) == before + 2 * (len(workers(backend)) - 2))
    assert not [pid for pid in workers(backend) if "Z (zombie)" in Path(f"/proc/{pid}/status").read_text()]


@pytest.mark.parametrize("spare", [0, 1, 2], ids=["no-socket", "half-a-pair", "no-pidfd"])
def test_without_descriptors_for_a_worker_a_call_waits_and_nothing_is_left_of_the_attempt(
    start: Start, gates: Gates, spare: int
) -> None:
    backend = start(idle_workers=1)
    busy = backend.send("gate", started="started", gate="gate", storage=HA)
    gates.wait("started")
    before, children = descriptors(backend), workers(backend)
    allowed = resource.prlimit(backend.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(backend.pid, resource.RLIMIT_NOFILE, (_limit_that_leaves(backend, 1 + spare), allowed[1]))
    waiting = backend.send("echo", storage=HA)
    eventually(lambda: "No worker process can be started" in backend.log.read_text())
    assert workers(backend) == children, "no zombie, nor a worker nobody knows"
    eventually(lambda: descriptors(backend) == before + 1)
    resource.prlimit(backend.pid, resource.RLIMIT_NOFILE, allowed)
    assert isinstance(result(read_response(waiting)), dict)
    gates.open("gate", "done")
    assert result(read_response(busy)) == "done"


def _limit_that_leaves(backend: Backend, count: int) -> int:
    """The RLIMIT_NOFILE under which the server can open ``count`` descriptors more."""
    used = {int(name) for name in os.listdir(f"/proc/{backend.pid}/fd")}
    free = [number for number in range(max(used) + count + 2) if number not in used]
    return free[count]


# --- the end ---


def test_sigterm_lets_calls_in_progress_and_waiting_finish(start: Start, gates: Gates) -> None:
    backend = start(storage_busy=1)
    running = backend.send("gate", started="started", gate="gate", storage=HA)
    gates.wait("started")
    waiting = backend.send("echo", storage=HA)
    result(backend.call("echo", storage=LOCAL))
    for pid in [backend.pid, *workers(backend)]:
        os.kill(pid, signal.SIGTERM)  # as systemd does with a whole control group
    eventually(lambda: _refuses(backend))
    gates.open("gate", "finished")
    assert result(read_response(running)) == "finished"
    assert isinstance(result(read_response(waiting)), dict)
    assert backend.wait() == 0
    assert not os.path.exists(backend.socket_path)


def _refuses(backend: Backend) -> bool:
    try:
        backend.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_sigterm_waits_no_longer_than_the_grace_period(start: Start, gates: Gates) -> None:
    backend = start(grace=0.2)
    client = backend.send("gate", started="started", gate="gate")
    worker = int(gates.wait("started"))
    began = time.monotonic()
    assert backend.stop() == 0
    assert 0.2 <= time.monotonic() - began < 2
    client.close()
    gates.open("gate")
    eventually(lambda: not os.path.exists(f"/proc/{worker}") or _is_zombie(worker))


def test_what_is_not_done_after_the_grace_period_is_answered_and_its_worker_undoes_it(
    start: Start, gates: Gates
) -> None:
    backend = start(grace=0.2, storage_busy=1)
    running = backend.send("until_gone", storage=HA, timeout=1800)
    gates.wait("started")
    waiting = backend.send("echo", storage=HA, timeout=1800)
    result(backend.call("echo", storage=LOCAL))
    backend.terminate()
    for client in (running, waiting):
        response = read_response(client)
        assert kind(response) == "ServiceStopped", response
        assert "pvesm list ha" in json.dumps(response)
    assert gates.wait("gone") == "False True"
    assert backend.wait() == 0


def _is_zombie(pid: int) -> bool:
    try:
        return "Z (zombie)" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_workers_end_when_the_server_is_killed(tmp_path: Path) -> None:
    with start_backend(tmp_path, lambda: Fake(tmp_path)) as backend:
        children = workers(backend)
        os.kill(backend.pid, signal.SIGKILL)
        assert backend.wait() == -signal.SIGKILL
    eventually(lambda: all(not os.path.exists(f"/proc/{pid}") or _is_zombie(pid) for pid in children))


# --- the socket ---


def test_the_socket_of_systemd_is_used_and_left_alone(start: Start) -> None:
    backend = start(by_systemd=True)
    assert isinstance(result(backend.call("echo")), dict)
    assert backend.stop() == 0
    assert os.path.exists(backend.socket_path)


def test_our_own_socket_is_for_root_alone(start: Start) -> None:
    assert os.stat(start().socket_path).st_mode & 0o777 == 0o600


def test_a_stale_socket_is_replaced(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "backend.sock"))
    assert isinstance(result(start().call("echo")), dict)


def test_a_socket_on_which_somebody_answers_is_not_taken_over(start: Start, tmp_path: Path) -> None:
    backend = start()
    with pytest.raises(Error, match="another server answers there"):
        serve(Fake(tmp_path), backend.socket_path)
    assert isinstance(result(backend.call("echo")), dict)


@pytest.mark.parametrize(
    "path", ["a-file", "no-such-folder/backend.sock", "x" * 200], ids=["file", "no-folder", "long"]
)
def test_a_path_that_cannot_be_a_socket_is_an_error_and_is_left_alone(tmp_path: Path, path: str) -> None:
    (tmp_path / "a-file").write_text("mine")
    with pytest.raises(Error, match="Listening of"):
        serve(Fake(tmp_path), str(tmp_path / path))
    assert os.listdir(tmp_path) == ["a-file"] and (tmp_path / "a-file").read_text() == "mine"


def test_without_a_socket_from_systemd_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    with pytest.raises(Error, match="systemd passed none"):
        serve(Fake(tmp_path))
