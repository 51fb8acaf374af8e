"""Measurements as JSON in pytest-benchmark's shape, which `results.py` reads."""

from __future__ import annotations

import datetime
import json
import statistics
from pathlib import Path
from typing import Any

from installed import machine


def record(name: str, info: dict[str, Any], times: list[float], **more: Any) -> dict[str, Any]:
    """One measurement: what it says of itself, and its times in seconds under pytest-benchmark's names."""
    stats = {"min": min(times), "median": statistics.median(times), "rounds": len(times)}
    return {**more, "name": name, "extra_info": info, "stats": stats}


def write_json(path: Path, records: list[dict[str, Any]]) -> None:
    """Write records, with the machine and the date."""
    results = {
        "machine_info": {"fastrnn": machine()},
        "datetime": datetime.datetime.now(datetime.UTC).isoformat(),
        "benchmarks": records,
    }
    path.write_text(json.dumps(results, indent=1), encoding="utf-8")
