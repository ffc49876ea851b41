"""Start, talk to, time out and kill workers. Whatever a worker does, its caller gets an answer or a ``CellError``."""

from harness.workers.code_bundle import Bundle, bundle
from harness.workers.launch import Launch
from harness.workers.worker import Worker

__all__ = ["Bundle", "Launch", "Worker", "bundle"]
