"""Start, talk to, time out and kill workers. Whatever a worker does, its caller gets an answer or a ``CellError``."""

from harness.workers.code_bundle import Bundle, bundle, code_sha256
from harness.workers.launch import Launch
from harness.workers.worker import START_SECONDS, Worker

__all__ = ["START_SECONDS", "Bundle", "Launch", "Worker", "bundle", "code_sha256"]
