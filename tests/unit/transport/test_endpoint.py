"""Endpoints, contexts and the coordinator's socket: real sockets, and errors a user can act on."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from dflow.errors import OptionError
from dflow.transport.control import ControlRouter
from dflow.transport.endpoint import (
    MAX_IPC_PATH,
    bind_control,
    close_context,
    connect_control,
    context,
    fresh_endpoint,
    is_tcp,
    local_address_towards,
    wait,
)

PATIENCE_S = 5.0


@pytest.fixture(autouse=True)
def opened() -> Iterator[list[zmq.Socket[bytes]]]:
    """Give a list to keep sockets in until the test is over."""
    kept: list[zmq.Socket[bytes]] = []
    yield kept
    for socket in kept:
        socket.close(0)
    close_context()


Opened = list[zmq.Socket[bytes]]


def listen(opened: Opened, endpoint: str) -> str:
    """Bind a control socket and keep it; return its real endpoint."""
    socket, real = bind_control(endpoint)
    opened.append(socket)
    return real


def router_in(opened: Opened, run_dir: Path) -> ControlRouter:
    """Return a coordinator's socket in ``run_dir``."""
    router = ControlRouter(fresh_endpoint(str(run_dir)))
    opened.append(router.socket)
    return router


def dial(opened: Opened, endpoint: str) -> zmq.Socket[bytes]:
    """Connect to a coordinator and keep the socket."""
    opened.append(connect_control(endpoint, b"worker-1"))
    return opened[-1]


def test_there_is_one_context_a_process_until_it_is_closed() -> None:
    first = context()
    assert context() is first
    close_context()
    assert first.closed
    assert context() is not first
    close_context()
    close_context()


def test_fresh_endpoints_are_never_the_same(tmp_path: Path) -> None:
    made = {fresh_endpoint(str(tmp_path)) for _ in range(100)}
    assert len(made) == 100
    assert all(one.startswith(f"ipc://{tmp_path}/") for one in made)


def test_a_socket_in_a_run_directory_fits_its_path_limit() -> None:
    run_dir = "/tmp/" + "d" * (MAX_IPC_PATH - 5 - 13)
    assert len(fresh_endpoint(run_dir).removeprefix("ipc://")) <= MAX_IPC_PATH


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", "tcp://127.0.0.1:0"), ("::1", "tcp://[::1]:0")],
)
def test_tcp_endpoints_ask_for_a_free_port(host: str, expected: str) -> None:
    assert fresh_endpoint("", host) == expected
    assert is_tcp(expected)
    assert not is_tcp("ipc:///x")


def test_a_bound_port_zero_is_resolved(opened: Opened) -> None:
    endpoint = listen(opened, "tcp://127.0.0.1:0")
    assert int(endpoint.rpartition(":")[2]) > 0


@pytest.mark.parametrize(
    "endpoint",
    ["tcp://127.0.0.1", "tcp://not-an-address:5555", "ipc:///no/such/dir/x", "nonsense"],
)
def test_an_endpoint_that_cannot_be_bound_is_named(endpoint: str) -> None:
    with pytest.raises(OptionError, match="cannot listen there") as caught:
        bind_control(endpoint)
    assert repr(endpoint) in str(caught.value)


def test_a_port_in_use_is_an_option_error(opened: Opened) -> None:
    endpoint = listen(opened, "tcp://127.0.0.1:0")
    with pytest.raises(OptionError, match="in use"):
        bind_control(endpoint)


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://127.0.0.1:notaport", "udp://127.0.0.1:1"])
def test_an_endpoint_that_cannot_be_connected_is_named(endpoint: str) -> None:
    with pytest.raises(OptionError, match=r"expected e\.g\. 'tcp://10") as caught:
        connect_control(endpoint, b"me")
    assert repr(endpoint) in str(caught.value)


def test_the_address_towards_this_host_is_its_own() -> None:
    assert local_address_towards("tcp://127.0.0.1:5555") == "127.0.0.1"


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1", "ipc:///tmp/x", "5555"])
def test_the_way_to_an_endpoint_needs_host_and_port(endpoint: str) -> None:
    with pytest.raises(OptionError, match="expected tcp://HOST:PORT"):
        local_address_towards(endpoint)


def test_a_host_without_a_route_is_an_option_error() -> None:
    with pytest.raises(OptionError, match="no route to it"):
        local_address_towards("tcp://[fe80::1%nosuchinterface]:5555")


def test_waiting_tells_sockets_and_descriptors_apart(opened: Opened, tmp_path: Path) -> None:
    dealer = dial(opened, listen(opened, fresh_endpoint(str(tmp_path))))
    router = opened[0]
    reader, writer = os.pipe()
    try:
        assert wait([router, reader], 0) == []
        os.write(writer, b"x")
        assert wait([router, reader], PATIENCE_S) == [reader]
        os.read(reader, 1)
        dealer.send(b"hello")
        assert wait([router, reader], None) == [router]
    finally:
        os.close(reader)
        os.close(writer)


def test_control_frames_go_both_ways(opened: Opened, tmp_path: Path) -> None:
    router = router_in(opened, tmp_path)
    assert router.receive() is None
    dealer = dial(opened, router.endpoint)
    dealer.send(b"hello")
    assert wait([router.socket], PATIENCE_S)
    assert router.receive() == (b"worker-1", [b"hello"])
    assert router.send(b"worker-1", b"welcome")
    assert wait([dealer], PATIENCE_S)
    assert dealer.recv(zmq.NOBLOCK) == b"welcome"


def test_a_peer_that_never_was_is_a_value_not_an_error(opened: Opened, tmp_path: Path) -> None:
    assert not router_in(opened, tmp_path).send(b"nobody", b"hello")


def test_finishing_lets_the_last_word_out(tmp_path: Path) -> None:
    router = ControlRouter(fresh_endpoint(str(tmp_path)))
    other: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        peer = other.socket(zmq.DEALER)
        peer.setsockopt(zmq.ROUTING_ID, b"peer")
        peer.connect(router.endpoint)
        peer.send(b"hello")
        assert wait([router.socket], PATIENCE_S)
        router.receive()
        assert router.send(b"peer", b"goodbye")
        router.finish(PATIENCE_S)
        assert wait([peer], PATIENCE_S)
        assert peer.recv(zmq.NOBLOCK) == b"goodbye"
    finally:
        other.destroy(linger=0)


def test_ipc_sockets_are_files_of_the_run_directory(opened: Opened, tmp_path: Path) -> None:
    listen(opened, fresh_endpoint(str(tmp_path)))
    (entry,) = tmp_path.iterdir()
    assert stat.S_ISSOCK(entry.stat().st_mode)
