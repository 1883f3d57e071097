"""The chart of a confirmation: scores by seed of the winner and the baselines."""

import html
from typing import Any

import plotly.graph_objects as go

from fsd_tune.report.charts.base import ACCENT, GREY, Chart, styled
from fsd_tune.report.confirmation import Confirmation


def chart(made: Confirmation) -> Any:
    """Draw the winner's scores in the search, on selection seeds and on fresh seeds, and the baselines' scores.

    Args:
        made: the content of `confirm/summary.json`.
    """
    winner = made["winner"]
    rows = [
        ("winner in the search", {"": winner["search_score"]}, winner["search_score"], ACCENT),
        ("winner, selection seeds", winner["selection"]["scores"], winner["selection"]["mean"], ACCENT),
        ("winner, fresh seeds", winner["fresh"]["scores"], winner["fresh"]["mean"], ACCENT),
    ]
    for configuration in made["configurations"]:
        if configuration["role"] == "baseline":
            rows.append(
                (
                    f"{configuration['label']}, fresh seeds",
                    configuration["fresh"]["scores"],
                    configuration["fresh"]["mean"],
                    GREY,
                )
            )
    drawing = go.Figure()
    for name, scores, mean, colour in rows:
        label = html.escape(name)
        drawing.add_scatter(
            x=list(scores.values()),
            y=[label] * len(scores),
            mode="markers",
            marker={"color": colour, "size": 8, "opacity": 0.6},
            text=[f"seed {seed}" if seed else "the search's seed" for seed in scores],
            hovertemplate="%{text}: %{x:.4f}<extra></extra>",
            showlegend=False,
        )
        drawing.add_scatter(
            x=[mean],
            y=[label],
            mode="markers",
            marker={"color": colour, "size": 22, "symbol": "line-ns", "line": {"width": 3, "color": colour}},
            hovertemplate="mean %{x:.4f}<extra></extra>",
            showlegend=False,
        )
    drawing.update_xaxes(title=html.escape(made["metric"].replace("_", " ")))
    drawing.update_yaxes(autorange="reversed", title="")
    caption = (
        "Each dot is a run, and a bar is the mean of its row. The distance from the search to the fresh seeds is the "
        "search's optimism. Compare the winner with the baselines only in the rows of fresh seeds."
    )
    height = 110 + 38 * len(rows)
    return Chart("confirmation", "Scores by seed", caption, styled(drawing), height=height)
