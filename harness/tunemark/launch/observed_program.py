"""Run a user's program unchanged and timestamp every chunk of its output on arrival with a monotonic clock.

The program writes to a pseudo-terminal if the system has them, because it would otherwise block-buffer its output. Its
output is passed on to standard error as it comes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from tunemark.errors import BadExperiment

Chunk = tuple[bytes, float | None]

_CHUNK_BYTES = 1 << 16
# Longest queue of unprocessed chunks: 64 MiB of full ones.
_QUEUE_CHUNKS = 1024
# Seconds that the program has to end by itself after an interruption.
_GRACE_S = 10.0


class ObservedProgram:
    """One execution of a program. exit_code: None until `chunks` is exhausted."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self.exit_code: int | None = None

    def chunks(self) -> Iterator[Chunk]:
        """The program's output as it comes, with arrival times. `BadExperiment` if it cannot be started."""
        reader, writer = _open_terminal()
        try:
            # Needed without a terminal; only Python reads it.
            environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
            process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, env=environment
            )
        except OSError as error:
            os.close(reader)
            raise BadExperiment(
                what=f"cannot start {self._command[0]!r}", why=str(error), next="give the command as you would type it"
            ) from error
        finally:
            os.close(writer)
        try:
            for data, arrived_s in _timestamped_chunks(reader):
                sys.stderr.buffer.write(data)
                sys.stderr.buffer.flush()
                yield data, arrived_s
        except KeyboardInterrupt:
            # Ctrl-C reaches only this process's group; the output so far can still be audited.
            process.send_signal(signal.SIGINT)
        finally:
            os.close(reader)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)
            if process.poll() is None:
                process.kill()
            self.exit_code = process.wait()


def read_chunks(stream: BinaryIO) -> Iterator[Chunk]:
    """The chunks of a pipe whose writer is already running. They are stamped from this call on."""
    return _timestamped_chunks(stream.fileno())


def _open_terminal() -> tuple[int, int]:
    try:
        import fcntl  # none of the three is on Windows
        import pty
        import struct
        import termios
    except ImportError:
        return os.pipe()
    reader, writer = pty.openpty()
    # Wide, so that programs do not wrap lines, and without translation of line feeds.
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 1000, 0, 0))
    attributes = termios.tcgetattr(writer)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(writer, termios.TCSANOW, attributes)
    return reader, writer


def _timestamped_chunks(descriptor: int) -> Iterator[Chunk]:
    """Chunks with their arrival times, read in a separate thread, so that slow processing of a chunk does not delay the
    timestamp of the next."""
    arrived: queue.Queue[Chunk | None] = queue.Queue(_QUEUE_CHUNKS)

    def read_all() -> None:
        while data := _read(descriptor):
            arrived.put((data, time.monotonic()))
        arrived.put(None)

    threading.Thread(target=read_all, daemon=True).start()
    return iter(arrived.get, None)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK_BYTES)
    except OSError as error:
        # EIO on Linux after the last program at the terminal has ended; EBADF after the descriptor was closed here.
        if error.errno in (errno.EIO, errno.EBADF):
            return b""
        raise
