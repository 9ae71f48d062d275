"""What a person sees of the demo: one heading, one progress line and one result per act."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

WIDTH_MAX = 100
WIDTH_MIN = 80
MARGIN = "  "
PLAIN_STEPS = 4
"""How often progress is told where nothing can be redrawn."""


class DemoConsole:
    """Writes to one stream; redraws only where that is a terminal."""

    def __init__(self, *, to_stderr: bool) -> None:
        self._console = Console(stderr=to_stderr, highlight=False)
        width = self._console.width if self._console.is_terminal else WIDTH_MAX
        self._console.width = min(WIDTH_MAX, max(WIDTH_MIN, width))

    def title(self, name: str, text: str) -> None:
        """Say what this is."""
        self._console.print(Text.assemble("\n", (name, "bold"), "  ", (text, "dim")))

    @contextmanager
    def act(self, name: str) -> Iterator[None]:
        """Head one act of the demo, and say how long it took."""
        self._console.print(Text(f"\n{name}", "bold"))
        started = time.monotonic()
        yield
        self._console.print(Text(f"  {time.monotonic() - started:.1f} s", "dim"))

    def note(self, text: str) -> None:
        """Say something that needs no proof."""
        self._print(MARGIN, Text(text, "dim"))

    def fact(self, text: str) -> None:
        """Say something that was just checked."""
        self._print(Text("  ✓ ", "green"), Text(text))

    def wrong(self, text: str) -> None:
        """Say why the demo stops."""
        self._console.print()
        self._print(Text("  ✗ ", "red"), Text(text))

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Text | str]],
        *,
        right: Iterable[int],
        shares: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """
        Print a table without lines.

        Args:
            right: The columns of figures, by number.
            shares: Columns of text that share what width the others leave; longer text is cut.
        """
        width = self._console.width - 2 * len(MARGIN) if shares else None
        table = Table(
            box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", width=width
        )
        figures = set(right)
        for number, name in enumerate(columns):
            table.add_column(
                name,
                justify="right" if number in figures else "left",
                ratio=shares.get(name),
                no_wrap=True,
            )
        for row in rows:
            table.add_row(*row)
        self._print(MARGIN, table)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """Show how far something is; call the value once per step."""
        if not self._console.is_terminal:
            yield _Plain(self, what, total).advance
            return
        columns = (
            TextColumn(f"  {what}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(what, total=total)
            yield lambda: progress.advance(task)

    def _print(self, margin: Text | str, what: RenderableType) -> None:
        """Print with a margin that every line of a longer text keeps."""
        grid = Table.grid()
        grid.add_row(margin, what)
        self._console.print(grid)


class _Plain:
    """Progress as a few plain lines."""

    def __init__(self, screen: DemoConsole, what: str, total: int) -> None:
        self._screen = screen
        self._what = what
        self._total = total
        self._done = 0

    def advance(self) -> None:
        self._done += 1
        step = max(1, self._total // PLAIN_STEPS)
        if self._done % step == 0 and self._done < self._total:
            self._screen.note(f"{self._what}: {self._done} of {self._total}")
