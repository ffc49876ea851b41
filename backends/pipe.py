"""The worker's end of the protocol: whole lines over two file descriptors that a fork shares."""

from __future__ import annotations

import os

from harness.core import messages
from harness.core.errors import ContractError
from harness.core.messages import Reply, Request


class Pipe:
    """Reads requests and writes replies. Nothing is kept between lines, so host and child can use it in turn."""

    def __init__(self, requests: int, replies: int) -> None:
        self.requests = requests
        self._replies = replies
        self._rest = b""

    def receive(self) -> Request | None:
        """The next request, asleep until it comes; None at the end. Raises ContractError for anything else."""
        while b"\n" not in self._rest:
            if len(self._rest) > messages.MAX_LINE_BYTES:
                raise ContractError("a request longer than a message may be")
            chunk = os.read(self.requests, 65536)
            if not chunk:
                return None
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return messages.decode_request(line)

    def send(self, reply: Reply) -> None:
        """Write one reply. Raises BrokenPipeError if nobody listens any more."""
        self._write(messages.encode(reply))

    def end_line(self) -> None:
        """Close whatever line another process may have left unfinished; an empty line means nothing."""
        self._write(b"\n")

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._replies, rest) :]
