"""Run somebody's own program unchanged and stamp every piece of its output on arrival with a monotonic clock.

The program writes to a terminal of its own where the system has such, since otherwise its language would hold lines
back to write them in blocks; what it prints goes on to our standard error as it comes.
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
# What may wait to be worked on: 64 MiB of the fullest chunks.
_WAITING_CHUNKS = 1024
# After an interruption the program has this long to end by itself.
_GRACE_S = 10.0


class Witness:
    """One run of a program. exit_code: None until `chunks` has come to its end."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self.exit_code: int | None = None

    def chunks(self) -> Iterator[Chunk]:
        """What the program prints, as it comes. Raises `BadExperiment` where it cannot be started."""
        reader, writer = _terminal()
        try:
            # A variable that Python alone reads; harmless to all else, and needed where there is no terminal.
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
            for data, arrived_s in _stamped(reader):
                sys.stderr.buffer.write(data)
                sys.stderr.buffer.flush()
                yield data, arrived_s
        except KeyboardInterrupt:
            # A terminal's interrupt reaches our group alone, and its output so far is still worth an audit.
            process.send_signal(signal.SIGINT)
        finally:
            os.close(reader)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)
            if process.poll() is None:
                process.kill()
            self.exit_code = process.wait()


def arriving(stream: BinaryIO) -> Iterator[Chunk]:
    """The same of a pipe whose writer runs already."""
    return _stamped(stream.fileno())


def _terminal() -> tuple[int, int]:
    try:
        import fcntl  # none of the three is on Windows
        import pty
        import struct
        import termios
    except ImportError:
        return os.pipe()
    reader, writer = pty.openpty()
    # Wide, so that nobody wraps lines, and without the line feed's translation.
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 1000, 0, 0))
    attributes = termios.tcgetattr(writer)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(writer, termios.TCSANOW, attributes)
    return reader, writer


def _stamped(descriptor: int) -> Iterator[Chunk]:
    """Chunks with the time at which they could be read, by a thread of its own: whoever works on a chunk, or waits to
    pass it on, makes the next one no later."""
    arrived: queue.Queue[Chunk | None] = queue.Queue(_WAITING_CHUNKS)

    def follow() -> None:
        while data := _read(descriptor):
            arrived.put((data, time.monotonic()))
        arrived.put(None)

    threading.Thread(target=follow, daemon=True).start()
    while (chunk := arrived.get()) is not None:
        yield chunk


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK_BYTES)
    except OSError as error:
        # Linux says EIO when the last program at the terminal has gone; the other, that we have closed it.
        if error.errno in (errno.EIO, errno.EBADF):
            return b""
        raise
