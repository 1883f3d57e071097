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
    """Render a page and return its text.

    Args:
        template: name of its file in `templates/`.
        charts: by key; the template places them.
        filters: for the template, beside jinja2's own.
        **values: what the template shows.
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
        # `</` would end a script early, even inside a string.
        plotly=plotly.offline.get_plotlyjs().replace("</", r"<\/") if drawn else "",
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        charts=charts,
        # No `<` in a figure may open or close a tag of the script that holds it.
        figures={key: str(figure.to_json()).replace("<", r"\u003c") for key, figure in drawn.items()},
        **values,
    )
