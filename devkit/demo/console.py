"""The output of the demo: a heading, a progress line and checked facts for each scenario."""

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
"""The number of progress lines where the output is not a terminal."""


class DemoConsole:
    """Writes to one stream; redraws only where that is a terminal."""

    def __init__(self, *, to_stderr: bool) -> None:
        self._console = Console(stderr=to_stderr, highlight=False)
        width = self._console.width if self._console.is_terminal else WIDTH_MAX
        self._console.width = min(WIDTH_MAX, max(WIDTH_MIN, width))

    def title(self, name: str, text: str) -> None:
        """Print the title."""
        self._console.print(Text.assemble("\n", (name, "bold"), "  ", (text, "dim")))

    @contextmanager
    def scenario(self, name: str) -> Iterator[None]:
        """Print the heading of a scenario, and how long it took."""
        self._console.print(Text(f"\n{name}", "bold"))
        started = time.monotonic()
        yield
        self._console.print(Text(f"  {time.monotonic() - started:.1f} s", "dim"))

    def note(self, text: str) -> None:
        """Print a remark that was not checked."""
        self._print(MARGIN, Text(text, "dim"))

    def fact(self, text: str) -> None:
        """Print a fact that was just checked."""
        self._print(Text("  ✓ ", "green"), Text(text))

    def failure(self, text: str) -> None:
        """Print why the demo stops."""
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
            shares: The ratios in which text columns share the remaining width; longer text is cut.
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
    def progress(self, label: str, total: int) -> Iterator[Callable[[], None]]:
        """Show progress; the yielded function is called once per step."""
        if not self._console.is_terminal:
            yield _PlainProgress(self, label, total).advance
            return
        columns = (
            TextColumn(f"  {label}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(label, total=total)
            yield lambda: progress.advance(task)

    def _print(self, margin: Text | str, content: RenderableType) -> None:
        """Print with a margin in front of every line."""
        grid = Table.grid()
        grid.add_row(margin, content)
        self._console.print(grid)


class _PlainProgress:
    """Progress as a few plain lines."""

    def __init__(self, console: DemoConsole, label: str, total: int) -> None:
        self._console = console
        self._label = label
        self._total = total
        self._done = 0

    def advance(self) -> None:
        self._done += 1
        step = max(1, self._total // PLAIN_STEPS)
        if self._done % step == 0 and self._done < self._total:
            self._console.note(f"{self._label}: {self._done} of {self._total}")
