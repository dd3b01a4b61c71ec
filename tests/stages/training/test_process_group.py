"""Tests of the network interface on which the workers of a training talk."""

import socket
import sys

import pytest

from distlstm.stages.training.process_group import interface_of


@pytest.mark.skipif(sys.platform != "linux", reason="the system call is that of Linux")
def test_the_interface_of_an_address_is_known_and_that_of_another_machine_is_not() -> None:
    assert interface_of("127.0.0.1") in [name for _, name in socket.if_nameindex()]
    assert interface_of("203.0.113.77") is None
