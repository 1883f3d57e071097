"""Measured models as tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

_SIZE_COLUMNS = ("parameters", "MB")


def measure_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the tables of `api.measure`: sizes and operations, then latencies, student and teacher side by side.

    Args:
        document: as `api.measure` returns it.
    """
    models, machine = document["models"], document["machine"]
    lengths = list(next(iter(models.values()))["flops"])
    header = ["model", *_SIZE_COLUMNS, *(f"MFLOPs, {length} tokens" for length in lengths)]
    rows = [
        [name, f"{model['parameters']:,}", f"{model['size_mb']:.1f}", *(_mega(model["flops"][key]) for key in lengths)]
        for name, model in models.items()
    ]
    return [
        *table(header, rows),
        "",
        *_latency_lines(models, machine),
        *(f"note: {note}" for note in document["notes"]),
    ]


def served_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the files of an exported student as a table, and what int8 costs.

    Args:
        document: `size_and_speed` of `deployment.served_files.write_served_files`.
    """
    files, int8 = document["files"], document["int8"]
    threads = [latency["threads"] for latency in files[0]["latency"]]
    header = ["file", "runtime", *(["score"] if int8 else []), "MB"]
    header += [f"p50 / p90 ms, {count} thread{'s' * (count != 1)}" for count in threads]
    rows = [
        [
            file["file"],
            file["runtime"],
            *([f"{file['score']:.4f}"] if int8 else []),
            f"{file['size_mb']:.1f}",
            *(" / ".join(map(_milliseconds, (found["p50_ms"], found["p90_ms"]))) for found in file["latency"]),
        ]
        for file in files
    ]
    lines = table(header, rows)
    if document["machine"]:
        lines.insert(0, f"batch 1, {document['length']} tokens, on {document['machine']}:")
    if int8:
        parts = f", with {', '.join(int8['float_parts'])} in float" if int8["float_parts"] else ""
        change = f"{abs(int8['drop']):.2f} points {'less' if int8['drop'] > 0 else 'more'}"
        lines.append(f"int8: {int8['kind']}{parts}; {change} on {int8['dev_examples']:,} dev examples")
        lines.append(f"int8: calibrated on {int8['calibration']}")
    return lines + [f"note: {note}" for note in document["notes"]]


def side_by_side_lines(document: Mapping[str, Any], metric: str, scores: Mapping[str, float]) -> list[str]:
    """Return models in a table: score, parameters, size, operations and latency.

    Args:
        document: of `side_by_side.compare_models`.
        metric: the name of the score.
        scores: scores by the names of the models; a model without one has a dash.
    """
    models, setting = document["models"], document["setting"]
    header = ["model", metric, *_SIZE_COLUMNS, "MFLOPs", *(["p50 ms", "p90 ms"] if setting else [])]
    rows = [
        [
            name,
            f"{scores[name]:.4f}" if name in scores else "-",
            f"{model['parameters']:,}",
            f"{model['size_mb']:.1f}",
            _mega(model["flops"]),
            *([_milliseconds(model["p50_ms"]), _milliseconds(model["p90_ms"])] if setting else []),
        ]
        for name, model in models.items()
    ]
    lines = table(header, rows)
    if setting:
        threads = f"{setting['threads']} thread{'s' * (setting['threads'] != 1)}"
        lines.append(
            f"latency: {setting['runtime']} on {setting['device']}, {threads}, batch {setting['batch']}, "
            f"{setting['length']} tokens; {document['machine']}"
        )
    return lines + [f"note: {note}" for note in document["notes"]]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of aligned columns: the first to the left, the others to the right.

    Args:
        header: the name of each column.
        rows: the cells.
    """
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return [
        "  ".join(f"{cell:<{width}}" if not column else f"{cell:>{width}}" for column, (cell, width) in
                  enumerate(zip(row, widths, strict=True))).rstrip()
        for row in (header, *rows)
    ]  # fmt: skip


def times(latency: Mapping[str, Any]) -> str:
    """Return the 50th, 90th and 99th percentile in milliseconds, such as `3.1 / 3.4 / 4.0`.

    Args:
        latency: the JSON value of a latency.
    """
    return " / ".join(_milliseconds(latency[name]) for name in ("p50_ms", "p90_ms", "p99_ms"))


def _latency_lines(models: Mapping[str, Any], machine: Mapping[str, Any]) -> list[str]:
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    first = next(iter(models.values()))["latency"]
    header = ["runtime", "device", "threads", "batch", "tokens", *models]
    if len(models) > 1:
        header.append("times as fast")
    rows = []
    for number, setting in enumerate(first):
        found = [model["latency"][number] for model in models.values()]
        row = [
            *(str(setting[name]) for name in ("runtime", "device", "threads", "batch", "length")),
            *map(times, found),
        ]
        if len(models) > 1:
            row.append(f"{found[1]['p50_ms'] / found[0]['p50_ms']:.2f}")
        rows.append(row)
    runs = sorted({latency["runs"] for model in models.values() for latency in model["latency"]})
    count = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    place = f"{machine['processor']}, {machine['cores']} cores{gpu}"
    title = f"milliseconds for a batch, p50 / p90 / p99 of {count} runs, on {place}:"
    return [title, *table(header, rows)]


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value < 1 else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _mega(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:,.0f}"
