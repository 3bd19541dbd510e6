"""Programs started as forks of a process that has imported already: 20 ms instead of seconds.

`limbeck.warm_server` is that process; it listens at a socket of this machine. As a script this file stands in
for Python: `warm.py SOCKET PYTHON -m MODULE ARGUMENT...` has the server run the module with its own streams,
variables and folder, and ends as it ends. It loads next to nothing, so nothing of Limbeck either.
"""

import _socket  # `socket`, `json` and their like take longer to load than all else that a stand-in does
import os
import select
import sys
from array import array

ADDRESS = "LIMBECK_WARM"
"""The variable that names the socket to a run's processes. Unset: programs start by themselves."""
OFF = "0"
"""What a user may set it to, so that every task and engine of a local run starts by itself as in a pod."""
SERVED = "kfp.dsl.executor_main"
"""Of what is started through the stand-in, the one module that is run as a fork."""
HEADER_BYTES = 8
STREAMS = (0, 1, 2)
KILLED = -9


class Started:
    """A process that the server has forked: what `subprocess.Popen` tells of one."""

    def __init__(
        self,
        address: str,
        arguments: list[str],
        *,
        env: dict[str, str],
        streams: tuple[int, int, int] = STREAMS,
        imports: tuple[str, ...] = (),
        process_group: bool = False,
    ) -> None:
        """Start it.

        Args:
            address: Of the server's socket.
            arguments: A module, and what follows it on the command line.
            env: All its variables.
            streams: What becomes its file descriptors 0, 1 and 2.
            imports: What the server is to import first, for it and for all after it.
            process_group: Whether it leads a process group of its own.

        Raises:
            OSError: when there is no server.
        """
        self.returncode: int | None = None
        self._pid: int | None = None
        request = {
            "arguments": arguments,
            "env": env,
            "folder": os.getcwd(),  # noqa: PTH109 - see the imports
            "imports": imports,
            "process_group": process_group,
        }
        data = repr(request).encode()
        self._server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            self._server.connect(address)
            descriptors = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", streams))
            self._server.sendmsg([len(data).to_bytes(HEADER_BYTES, "big")], [descriptors])
            self._server.sendall(data)
        except OSError:
            self._server.close()
            raise

    @property
    def pid(self) -> int:
        """Its process id; there once the server has imported what was asked for.

        Raises:
            ConnectionError: when the server has ended before that.
        """
        if self._pid is None:
            self._pid = self._number()
        return self._pid

    def poll(self) -> int | None:
        """Its exit code if it has ended; below 0 the signal that ended it."""
        try:
            return self.wait(0)
        except TimeoutError:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; its exit code. With a server that was killed nobody knows: SIGKILL.

        Raises:
            TimeoutError: when it has not ended by then.
        """
        if self.returncode is None:
            try:
                if self.pid and not select.select([self._server], [], [], timeout)[0]:
                    raise TimeoutError
                self.returncode = self._number()
            except ConnectionError:
                self.returncode = KILLED
            self._server.close()
        return self.returncode

    def _number(self) -> int:
        data = self._server.recv(HEADER_BYTES, _socket.MSG_WAITALL)
        if len(data) < HEADER_BYTES:
            raise ConnectionResetError("the server has ended")
        return int.from_bytes(data, "big", signed=True)


def stand_in(address: str, python: str, *arguments: str) -> int:
    """Run a module as a fork of the server, or without one by a Python of its own.

    Returns:
        Its exit code. A signal that ended it ends this process as well.
    """
    try:
        if arguments[:2] != ("-m", SERVED):
            raise ConnectionRefusedError
        task = Started(address, [*arguments[1:]], env=dict(os.environ))
    except OSError:
        os.execv(python, [python, *arguments])  # noqa: S606 - what was asked for
    status = task.wait()
    if status < 0:
        import signal  # noqa: PLC0415 - see the imports

        if status != KILLED:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(stand_in(*sys.argv[1:]))
