"""Writes deploy/grafana/spritemesh.json, a fleet's dashboard; `--check` only says whether it is current."""

import json
import sys

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

from tools.dashboard_panels import FIGURES, MANAGER, ROWS, Figure, Graph
from tools.pages import kept_current

PAGE = "deploy/grafana/spritemesh.json"
_SOURCE = models.DataSourceRef(type_val="prometheus", uid="$datasource")
_RED, _ORANGE, _GREEN, _BLUE, _GREY = "red", "orange", "green", "blue", "#8e8e8e"
# Of the values of `state` and `status`.
_COLOURS = {
    "healthy": _GREEN,
    "degraded": _ORANGE,
    "critical": _RED,
    "unknown": _GREY,
    "up": _GREEN,
    "connecting": _BLUE,
    "waiting": _BLUE,
    "down": _RED,
    "disabled": _GREY,
    "alive": _GREEN,
    "silent": _RED,
    "draining": _ORANGE,
    "idle": _BLUE,
    "dead": _RED,
}


def built() -> str:
    """The dashboard as Grafana imports it."""
    builder = (
        dashboard.Dashboard("spritemesh")
        .uid("spritemesh")
        .description("A fleet of agent loops: how they are, what they do, and how well they are watched.")
        .tags(["spritemesh"])
        .timezone("browser")
        .time("now-3h", "now")
        .refresh("15s")
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_choice("manager", "Manager", "ops_manager_info", "instance"))
        .with_variable(_choice("loop", "Loop", f"ops_manager_loop_connected{{{MANAGER}}}", "loop"))
    )
    for figure in FIGURES:
        builder = builder.with_panel(_figure(figure))
    for title, graphs in ROWS:
        builder = builder.with_row(dashboard.Row(title))
        for graph in graphs:
            builder = builder.with_panel(_graph(graph))
    return json.dumps(builder.build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def expressions() -> list[str]:
    """Every query of the dashboard."""
    graphs = [query.expr for _, row in ROWS for graph in row for query in graph.queries]
    return [figure.expr for figure in FIGURES] + graphs


def _choice(name: str, label: str, metric: str, of: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(_SOURCE)
        .query({"query": f"label_values({metric}, {of})", "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _figure(figure: Figure) -> stat.Panel:
    steps = [models.Threshold(value=None, color=_GREEN if figure.orange_from or figure.red_from else _BLUE)]
    steps += [
        models.Threshold(value=value, color=colour)
        for value, colour in ((figure.orange_from, _ORANGE), (figure.red_from, _RED))
        if value is not None
    ]
    return (
        stat.Panel()
        .title(figure.title)
        .description(figure.description)
        .datasource(_SOURCE)
        .with_target(prometheus.Dataquery().expr(figure.expr).ref_id("A").instant())
        .unit(figure.unit)
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common.BigValueGraphMode.NONE)
        .height(4)
        .span(24 // len(FIGURES))
    )


def _graph(graph: Graph) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(graph.title)
        .description(graph.description)
        .datasource(_SOURCE)
        .unit(graph.unit)
        .min(0)
        .fill_opacity(60 if graph.parts else 5)
        .line_width(1)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common_builders.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
        .height(8)
        .span(graph.width)
    )
    for number, query in enumerate(graph.queries):
        panel = panel.with_target(
            prometheus.Dataquery().expr(query.expr).ref_id(chr(ord("A") + number)).legend_format(query.legend)
        )
    if graph.parts:
        panel = panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
        for name in graph.parts:
            fixed = {"mode": "fixed", "fixedColor": _COLOURS[name]}
            panel = panel.override_by_name(name, [models.DynamicConfigValue(id_val="color", value=fixed)])
    return panel


def main() -> int:
    """Exit code 1 with `--check` when the file is not current."""
    return kept_current(PAGE, lambda _: built())


if __name__ == "__main__":
    sys.exit(main())
