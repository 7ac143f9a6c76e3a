"""Results that show themselves: as HTML in a notebook, as a chart, as a table of pandas.

`report` draws, and stands on everything that it draws. So a result imports nothing of it: it asks for the module by
name when it is shown. Notebooks, and the gallery of the documentation, look for these methods on the object itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


class Displayed:
    """A result that notebooks show as HTML, and other consoles of IPython as a few lines of text."""

    def _repr_html_(self) -> str:
        return str(_report("notebook").to_html(self))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": _report("notebook").to_text(self), "text/html": self._repr_html_()}


class Plotted:
    """A result that is better seen as a picture."""

    def plot(self) -> Figure:
        """Return it as a chart: notebooks show it, ``savefig`` writes it.

        Raises:
            BrainstageError: There is nothing to draw.
        """
        return _report("pictures").plot(self)


class Tabular:
    """A result that is a table too."""

    def to_pandas(self) -> pandas.DataFrame:
        """Return it as a table, a row for each score, prediction, trial or slice.

        Raises:
            ConfigError: pandas is not installed.
        """
        return _report("frames").to_pandas(self)


def _report(module: str) -> Any:
    return import_module(f"brainstage.report.{module}")
