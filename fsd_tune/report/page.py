"""Render a page: one file that needs no network, with its style, script and charts in it.

The templates escape everything that comes from files, and a page forbids every request (Content-Security-Policy).
"""

import datetime
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import jinja2
import plotly.offline

from fsd_tune.report.charts.base import Chart


def render(template: str, charts: Mapping[str, Chart], filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """Return the text of a page.

    Args:
        template: the name of its file in `templates/`.
        charts: the charts by key; the template places them.
        filters: the filters of the template, in addition to jinja2's own.
        **values: the values that the template shows.
    """
    package = resources.files("fsd_tune.report") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (package / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= filters
    drawn = {key: chart.figure for key, chart in charts.items() if chart.figure is not None}
    return environment.get_template(template).render(
        style=(package / "report.css").read_text(encoding="utf-8"),
        script=(package / "report.js").read_text(encoding="utf-8"),
        # Escape `</`, which would end a script early, even inside a string.
        plotly=plotly.offline.get_plotlyjs().replace("</", r"<\/") if drawn else "",
        written_at=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        charts=charts,
        # Escape `<`, so that no text in a figure can close the script element around it.
        figures={key: str(figure.to_json()).replace("<", r"\u003c") for key, figure in drawn.items()},
        **values,
    )
