"""What the machine says of itself."""

import os
import socket

import pytest

from minihub import machine


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def port_of(server):
    return server.getsockname()[1]


def test_port_is_held_by_a_process_of_ours(listener):
    assert machine.port_holder(port_of(listener)).endswith(f"(process {os.getpid()})")


@pytest.mark.root
def test_port_held_by_another_user_is_told_by_the_users_name(listener):
    port = port_of(listener)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # somebody who may not look into root's processes
        try:
            listener.close()  # inherited: or the child holds it as well
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(write, machine.port_holder(port).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    assert told == "a program of the user root"


def test_port_that_nobody_holds(listener):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = port_of(server)
    assert machine.port_holder(free) == ""
