"""Builds the two dashboards: what each panel asks is said here once, and everything else follows.

`make derive` writes `librechat-tailer.json` and `librechat-tailer-fleet.json`, and copies them to the chart.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_MINE: Final = 'namespace=~"$namespace", job=~"$job", instance=~"$instance"'
_WIDTH: Final = 24
_HEIGHT: Final = 8
_SMALL: Final = 4


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `queries` are (expression, legend); `$mine` stands for the chosen instances; `unit` is Grafana's."""

    title: str
    description: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = _HEIGHT
    stacked: bool = False
    thresholds: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A heading with its panels; `collapsed` for what most people do not need every day."""

    title: str
    panels: Sequence[Panel]
    collapsed: bool = False


def _stat(title: str, description: str, query: str, unit: str, *thresholds: tuple[float, str]) -> Panel:
    return Panel(title, description, [(query, "")], unit, "stat", 3, _SMALL, thresholds=thresholds)


def _quantiles(metric: str) -> list[tuple[str, str]]:
    return [
        (
            f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{$mine}}[$__rate_interval])))",
            f"p{name}",
        )
        for share, name in (("0.5", "50"), ("0.95", "95"), ("0.99", "99"))
    ]


_LAG: Final = ((0, "green"), (60, "orange"), (300, "red"))
_ROWS: Final = (
    Row(
        "Lag",
        (
            _stat("Read lag", "Cluster time not read yet by the stream that is furthest behind. 0 when idle.", "max(tailer_stream_lag_seconds{$mine})", "s", *_LAG),
            _stat("Export lag", "Age of the oldest turn that a destination has not acknowledged; the one that is furthest behind.", "max(tailer_export_lag_seconds{$mine})", "s", *_LAG),
            _stat("Oplog headroom", "How far the stored position is from the oldest entry of MongoDB's oplog. Below 0 history is lost. No data without the privilege serverStatus.", "min(tailer_oplog_headroom_seconds{$mine})", "s", (-1e12, "red"), (21_600, "orange"), (43_200, "green")),
            _stat("Active", "Instances that hold the lease, for each shard: 1 is right.", "sum(tailer_leader{$mine}) / count(count by (namespace, job, shard) (tailer_shard_info{$mine}))", "short", (0, "red"), (1, "green"), (1.01, "red")),
            _stat("Dead letters", "Turns that could not be sent and are kept.", "max(tailer_dead_letters_kept{$mine})", "short", (0, "green"), (1, "orange")),
            _stat("Firing alerts", "Of the rules in deploy/prometheus, where this Prometheus evaluates them.", 'count(ALERTS{alertstate="firing", alertname=~"Tailer.*", namespace=~"$namespace", job=~"$job"}) or vector(0)', "short", (0, "green"), (1, "red")),
            _stat("p95 end to end", "From the end of a turn to its acknowledgement, with the settle time, in the last hour.", "histogram_quantile(0.95, sum by (le) (rate(tailer_end_to_end_latency_seconds_bucket{$mine}[1h])))", "s", (0, "green"), (60, "orange")),
            _stat("In time, 30 days", "Share of turns acknowledged within 60 s of their end; the goal is 99 %.", 'sum(increase(tailer_end_to_end_latency_seconds_bucket{$mine, le="60.0"}[30d])) / sum(increase(tailer_end_to_end_latency_seconds_count{$mine}[30d]))', "percentunit", (0, "red"), (0.99, "green")),
            Panel("Read lag by stream", "Grows every second while MongoDB does not answer.", [("tailer_stream_lag_seconds{$mine}", "{{stream}}")], "s"),
            Panel("Export lag", "Age of the oldest unacknowledged turn, by destination.", [("max by (destination) (tailer_export_lag_seconds{$mine})", "{{destination}}")], "s"),
            Panel("End to end", "From the end of a turn to its acknowledgement.", _quantiles("tailer_end_to_end_latency_seconds"), "s"),
            Panel("Checkpoint behind reading", "Cluster time between what was read and what is stored: what a restart reads again.", [("tailer_stream_position_timestamp_seconds{$mine} - tailer_checkpoint_timestamp_seconds{$mine}", "{{stream}}")], "s"),
            Panel("Since the last answer", "A stream answers every 2.5 seconds, even if nothing happens.", [("time() - tailer_stream_last_poll_timestamp_seconds{$mine}", "{{stream}}")], "s"),
            Panel("State", "What each instance is doing.", [("tailer_state{$mine} == 1", "{{instance}} {{state}}")], "short", "state-timeline"),
            Panel("End to end, all turns", "How many turns took how long: a few that are late show here and in no percentile.", [("sum by (le) (increase(tailer_end_to_end_latency_seconds_bucket{$mine}[$__rate_interval]))", "{{le}}")], "s", "heatmap", 24),
        ),
    ),
    Row(
        "Source and oplog",
        (
            Panel("Changes read", "Change events by collection and operation.", [("sum by (stream, op) (rate(tailer_stream_events_total{$mine}[$__rate_interval]))", "{{stream}} {{op}}")], "eps", stacked=True),
            Panel("Streams opened again", "Failures, by the reaction to them.", [("sum by (reason) (increase(tailer_stream_restarts_total{$mine}[$__rate_interval]))", "{{reason}}")], "short"),
            Panel("Oplog window and headroom", "How much the oplog holds, and how much of it lies before the stored position.", [("max(tailer_oplog_window_seconds{$mine})", "window"), ("min(tailer_oplog_headroom_seconds{$mine})", "headroom")], "s"),
            Panel("Time until history is lost", "Headroom divided by the speed at which the end of the oplog approaches, while it approaches.", [("min(tailer_oplog_headroom_seconds{$mine}) / (max(deriv(tailer_oplog_first_timestamp_seconds{$mine}[1h])) > 0) or min(tailer_oplog_headroom_seconds{$mine})", "at the earliest")], "s"),
            Panel("Lost history", "Stretches that no backfill has filled yet, and cluster time lost since the start.", [("max(tailer_stream_gaps_unfilled{$mine})", "not filled"), ("sum(tailer_stream_gap_seconds_total{$mine})", "seconds lost")], "short"),
            Panel("Clock skew", "This machine's clock, and LibreChat's, minus MongoDB's.", [("tailer_clock_skew_seconds{$mine}", "{{instance}}"), ("tailer_librechat_clock_skew_seconds{$mine}", "LibreChat, seen by {{instance}}")], "s"),
        ),
    ),
    Row(
        "Turns",
        (
            Panel("Open by what they wait for", "Open and parked turns.", [("sum by (kind) (tailer_pairs_pending{$mine})", "{{kind}}")], "short", stacked=True),
            Panel("Age of the oldest open turn", "Turns that wait long are parked and do not count here.", [("max(tailer_pair_oldest_pending_age_seconds{$mine})", "oldest")], "s"),
            Panel("Turns by outcome", "How turns ended, or why they are not sent.", [("sum by (outcome) (rate(tailer_pairs_total{$mine}[$__rate_interval]))", "{{outcome}}")], "ops", stacked=True),
            Panel("Rows that cannot be read", "Rows that lack a field that every message has, parts of answers of an unknown type, and failed queries.", [("sum(increase(tailer_unknown_parts_total{$mine}[$__rate_interval])) or vector(0)", "parts"), ("sum(increase(tailer_document_parse_failures_total{$mine}[$__rate_interval])) or vector(0)", "rows"), ("sum(increase(tailer_read_failures_total{$mine}[$__rate_interval])) or vector(0)", "queries")], "short"),
            Panel("Dead letters", "Turns that became dead letters, by destination and reason; scores and deletions that were refused or tried again.", [("sum by (operation) (increase(tailer_annotation_retries_total{$mine}[$__rate_interval]))", "{{operation}} again"), ("sum by (destination, reason) (increase(tailer_dead_letters_total{$mine}[$__rate_interval]))", "{{destination}} {{reason}}"), ("sum by (operation) (increase(tailer_annotations_failed_total{$mine}[$__rate_interval]))", "{{operation}} refused")], "short"),
            Panel("Backfill", "Rows walked by backfills.", [("sum(rate(tailer_backfill_documents_total{$mine}[$__rate_interval]))", "rows")], "ops"),
            Panel("Backfill left", "Rows that backfills have yet to walk.", [("sum(tailer_backfill_remaining_documents{$mine}) or vector(0)", "rows")], "short"),
            Panel("Backfill ends in", "At the speed of the last hour; 0 without a backfill.", [("sum(tailer_backfill_remaining_documents{$mine}) / (sum(rate(tailer_backfill_documents_total{$mine}[1h])) > 0) or vector(0)", "at the earliest")], "s"),
            Panel("Masked", "Texts that a rule masked, by rule.", [("sum by (rule) (rate(tailer_redactions_total{$mine}[$__rate_interval])) or vector(0)", "{{rule}}")], "ops"),
        ),
    ),
    Row(
        "Sending",
        (
            Panel("Requests by result", "By destination. rate_limited: 429; server_error: 5xx; connection: none, or a broken one; timeout: no answer in time; partial: taken but for some spans; retry: anything else that is tried again.", [("sum by (destination, result) (rate(tailer_export_requests_total{$mine}[$__rate_interval]))", "{{destination}} {{result}}")], "reqps", stacked=True),
            Panel("Share of failed requests", "Of all requests to a destination.", [('sum by (destination) (rate(tailer_export_requests_total{$mine, result!="ok"}[$__rate_interval])) / sum by (destination) (rate(tailer_export_requests_total{$mine}[$__rate_interval]))', "{{destination}}")], "percentunit"),
            Panel("Request duration", "Time of a request to any destination.", _quantiles("tailer_export_request_duration_seconds"), "s"),
            Panel("Queue", "Share of the queue that is taken by batches waiting.", [("max by (destination) (tailer_queue_length{$mine} / tailer_queue_capacity{$mine})", "{{destination}}")], "percentunit"),
            Panel("Traces and observations", "Acknowledged, by destination.", [("sum by (destination) (rate(tailer_export_traces_total{$mine}[$__rate_interval]))", "{{destination}} traces"), ("sum by (destination) (rate(tailer_export_observations_total{$mine}[$__rate_interval]))", "{{destination}} observations")], "ops"),
            Panel("Bytes sent", "Compressed, including repeats.", [("sum by (destination) (rate(tailer_export_bytes_total{$mine}[$__rate_interval]))", "{{destination}}")], "Bps"),
            Panel("Lost answers", "Batches of unknown outcome, by how they were settled.", [("sum by (verdict) (increase(tailer_export_unknown_outcomes_total{$mine}[$__rate_interval]))", "{{verdict}}")], "short"),
            Panel("Paused or away", "1 while a destination refuses the keys, and 1 while one of several accepts nothing.", [("max by (destination) (tailer_export_paused{$mine})", "{{destination}} refuses the keys"), ("max by (destination) (tailer_export_away{$mine})", "{{destination}} away")], "short"),
            Panel("Owed", "Turns and changes that are kept in the state database for a destination that is away.", [("sum by (destination) (tailer_export_owed{$mine})", "{{destination}}")], "short"),
        ),
    ),
    Row(
        "What the models were used for (TAILER_USAGE_METRICS)",
        (
            Panel("Turns by model", "Acknowledged turns.", [("sum by (model) (rate(tailer_llm_turns_total{$mine}[$__rate_interval]))", "{{model}}")], "ops", stacked=True),
            Panel("Tokens by kind", "In Langfuse's exclusive buckets.", [("sum by (type) (rate(tailer_llm_tokens_total{$mine}[$__rate_interval]))", "{{type}}")], "short", stacked=True),
            Panel("Cost by model", "US dollars an hour.", [("sum by (model) (rate(tailer_llm_cost_usd_total{$mine}[$__rate_interval])) * 3600", "{{model}}")], "currencyUSD", stacked=True),
            Panel("Tool calls", "By tool and outcome.", [("sum by (tool, outcome) (rate(tailer_llm_tool_calls_total{$mine}[$__rate_interval]))", "{{tool}} {{outcome}}")], "ops"),
        ),
        collapsed=True,
    ),
    Row(
        "The process",
        (
            Panel("Memory", "Resident memory.", [("process_resident_memory_bytes{$mine}", "{{instance}}")], "bytes"),
            Panel("CPU", "Cores in use; one instance uses one at most.", [("rate(process_cpu_seconds_total{$mine}[$__rate_interval])", "{{instance}}")], "short"),
            Panel("Event loop lag", "How late a timer runs, 99 in 100.", [("histogram_quantile(0.99, sum by (le, instance) (rate(tailer_event_loop_lag_seconds_bucket{$mine}[$__rate_interval])))", "{{instance}}")], "s"),
            Panel("Open files", "Sockets are files too.", [("process_open_fds{$mine}", "{{instance}}")], "short"),
            Panel("Garbage collections", "By generation.", [("sum by (generation) (rate(python_gc_collections_total{$mine}[$__rate_interval]))", "{{generation}}")], "ops"),
            Panel("Running for", "Since the start of the process.", [("time() - process_start_time_seconds{$mine}", "{{instance}}")], "s"),
            Panel("Version", "Which release runs.", [("tailer_build_info{$mine}", "{{instance}} {{version}}")], "short"),
        ),
        collapsed=True,
    ),
)  # fmt: skip
_FLEET: Final = (
    Row(
        "All instances",
        (
            Panel("Read lag", "By release.", [("max by (namespace, job) (tailer_stream_lag_seconds{$mine})", "{{namespace}} {{job}}")], "s", width=12),
            Panel("Export lag", "By release and destination.", [("max by (namespace, job, destination) (tailer_export_lag_seconds{$mine})", "{{namespace}} {{job}} {{destination}}")], "s", width=12),
            Panel("State", "What each instance is doing.", [("tailer_state{$mine} == 1", "{{namespace}} {{instance}} {{state}}")], "short", "state-timeline", 12),
            Panel("Traces acknowledged", "By release and destination.", [("sum by (namespace, job, destination) (rate(tailer_export_traces_total{$mine}[$__rate_interval]))", "{{namespace}} {{job}} {{destination}}")], "ops", width=12),
            Panel("Dead letters kept", "By release.", [("max by (namespace, job) (tailer_dead_letters_kept{$mine})", "{{namespace}} {{job}}")], "short", width=12),
            Panel("Oplog headroom", "By release.", [("min by (namespace, job) (tailer_oplog_headroom_seconds{$mine})", "{{namespace}} {{job}}")], "s", width=12),
        ),
    ),
)  # fmt: skip


def build() -> dict[str, str]:
    """The dashboards' JSON by file name."""
    return {
        "librechat-tailer.json": _write("librechat-tailer", "LibreChat tailer", _ROWS),
        "librechat-tailer-fleet.json": _write(
            "librechat-tailer-fleet", "LibreChat tailer: all instances", _FLEET
        ),
    }


def _write(uid: str, title: str, rows: Sequence[Row]) -> str:
    dashboard = {
        "uid": uid,
        "title": title,
        "tags": ["librechat", "langfuse"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "panels": _place(rows),
    }
    return json.dumps(dashboard, indent=1) + "\n"


def _variables() -> list[dict[str, Any]]:
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    return [
        source,
        *(
            {
                "name": name,
                "label": name.capitalize(),
                "type": "query",
                "datasource": _SOURCE,
                "query": {"query": f"label_values({query}, {name})", "refId": name},
                "refresh": 2,
                "includeAll": True,
                "multi": True,
                # No namespace outside of Kubernetes: nothing must match too.
                "allValue": ".*",
                "current": {"text": "All", "value": "$__all"},
            }
            for name, query in (
                ("namespace", "tailer_build_info"),
                ("job", 'tailer_build_info{namespace=~"$namespace"}'),
                ("instance", 'tailer_build_info{namespace=~"$namespace", job=~"$job"}'),
            )
        ),
    ]


def _place(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Panels from left to right, below one another where a line is full."""
    placed: list[dict[str, Any]] = []
    top, number = 0, 1
    for row in rows:
        heading = {"id": number, "type": "row", "title": row.title, "collapsed": row.collapsed, "panels": []}
        heading["gridPos"] = {"x": 0, "y": top, "w": _WIDTH, "h": 1}
        number += 1
        inner: list[dict[str, Any]] = []
        left, line = 0, top + 1
        height = 0
        for panel in row.panels:
            if left + panel.width > _WIDTH:
                left, line, height = 0, line + height, 0
            position = {"x": left, "y": line, "w": panel.width, "h": panel.height}
            inner.append({"id": number, "gridPos": position, **_panel(panel)})
            left, height, number = left + panel.width, max(height, panel.height), number + 1
        top = line + height
        placed.append({**heading, "panels": inner if row.collapsed else []})
        placed += [] if row.collapsed else inner
    return placed


def _panel(panel: Panel) -> dict[str, Any]:
    steps = [
        {"value": None if index == 0 else value, "color": colour}
        for index, (value, colour) in enumerate(panel.thresholds)
    ]
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0 if panel.kind == "timeseries" else None}
    if steps:
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "fillOpacity": 25 if panel.stacked else 8,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    if panel.title == "Clock skew":
        defaults["min"] = None
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "fieldConfig": {
            "defaults": {key: value for key, value in defaults.items() if value is not None},
            "overrides": [],
        },
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": query.replace("$mine", _MINE),
                "legendFormat": legend or "__auto",
                "format": "heatmap" if panel.kind == "heatmap" else "time_series",
                "editorMode": "code",
                "range": True,
            }
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    if panel.kind == "state-timeline":
        return {
            "showValue": "never",
            "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom"},
        }
    if panel.kind == "heatmap":
        return {"calculate": False, "yAxis": {"unit": panel.unit}, "tooltip": {"mode": "single"}}
    return {
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
