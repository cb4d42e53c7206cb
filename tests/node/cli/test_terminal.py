"""`-it` on a real terminal: keys as they are typed, the window's size, detaching."""

import pexpect

from tests.conftest import WaitFor
from tests.node.cli.conftest import Daemon


def test_run_it(daemon: Daemon, wait_for: WaitFor) -> None:
    child = daemon.terminal("run", "-it", "--rm", "busybox", "cat")
    wait_for(lambda: not child.getecho())
    child.send(b"\x01typed\r")
    # Raw: the carriage return is what arrives, and nothing echoes but the program.
    child.expect_exact(b"\x01typed\r")
    child.send(b"\x03\x04")
    child.expect_exact(b"\x03\x04")


def test_detach(daemon: Daemon, wait_for: WaitFor) -> None:
    child = daemon.terminal("run", "-it", "--name", "d", "busybox", "cat")
    wait_for(lambda: not child.getecho())
    child.send(b"one")
    child.expect_exact(b"one")
    child.send(b"\x10\x11")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_own_detach_keys(daemon: Daemon, wait_for: WaitFor) -> None:
    child = daemon.terminal("run", "-it", "--detach-keys", "ctrl-x", "busybox", "cat")
    wait_for(lambda: not child.getecho())
    child.send(b"\x10\x11")
    child.expect_exact(b"\x10\x11")
    child.send(b"\x18")
    child.expect(pexpect.EOF)


def test_the_windows_size_is_told_at_the_start_and_when_it_changes(daemon: Daemon, wait_for: WaitFor) -> None:
    child = daemon.terminal("run", "-it", "--name", "w", "busybox", "cat", size=(30, 100))
    wait_for(lambda: [held.size for held in daemon.containers.all.values()] == [(30, 100)])
    child.setwinsize(40, 132)
    wait_for(lambda: [held.size for held in daemon.containers.all.values()] == [(40, 132)])


def test_progress_is_drawn_on_a_terminal(daemon: Daemon) -> None:
    child = daemon.terminal("pull", "foo")
    child.expect_exact(b"Pulling from library/foo")
    child.expect_exact(b"abcdef012345")
    child.expect_exact(b"Status: Downloaded newer image for foo:latest")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_password_is_asked_for_and_not_shown(daemon: Daemon) -> None:
    child = daemon.terminal("login", "127.0.0.1:5000")
    child.expect_exact(b"Username: ")
    child.sendline(b"me")
    child.expect_exact(b"Password: ")
    child.sendline(b"right")
    child.expect(pexpect.EOF)
    output = child.before or b""
    child.close()
    assert b"Login Succeeded" in output
    assert b"right" not in output
    assert (daemon.config / "config.json").exists()
