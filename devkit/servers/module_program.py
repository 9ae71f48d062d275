"""A Python module of this checkout as a server program."""

import sys
from pathlib import Path

from devkit.servers.data_folder import process_tag_of
from devkit.servers.server import Program

CHECKOUT = Path(__file__).parents[2]


def module_program(
    module: str, *, name: str, log_folder: Path, start_timeout_s: float, **options: object
) -> Program:
    """
    Return the program of a module that prints "ready at" once it serves.

    Args:
        log_folder: Also tells its processes from those of other folders.
        options: Its arguments; it also gets `--process-tag`.
    """
    process_tag = process_tag_of(log_folder)
    arguments = {**options, "process-tag": process_tag}
    return Program(
        name=name,
        argv=[sys.executable, "-m", module, *(f"--{key}={arguments[key]}" for key in arguments)],
        # `-m` finds the package in the working directory, installed or not.
        folder=CHECKOUT,
        log=log_folder / f"{name}.log",
        ready_text="ready at",
        process_tag=process_tag,
        start_timeout_s=start_timeout_s,
    )
