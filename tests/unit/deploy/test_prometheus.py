"""Scrape configuration, alert rules and dashboard: what they ask for exists, and what they tell is right."""

import json
import re
from typing import Any

import pytest

from spritemesh.reasons import REASONS
from tests.harness.deploy import DEPLOY, ROOT, anchors, documented_metrics, yaml_documents
from tools import dashboard, deploy_check

FOLDER = DEPLOY / "prometheus"
(RULES,) = yaml_documents(FOLDER / "rules.yml")
(RULE_TESTS,) = yaml_documents(FOLDER / "rules_test.yml")
ALERTS: list[Any] = [rule for group in RULES["groups"] for rule in group["rules"]]
NAMED = [pytest.param(rule, id=rule["alert"]) for rule in ALERTS]
METRIC = re.compile(r"\b(?:ops_manager|sprite_agent|process)_\w+|\bup\b|\bALERTS\b")
# Names within quotes are values of labels.
QUOTED = re.compile(r'"[^"]*"')


def metrics(expression: str) -> set[str]:
    """The metrics that an expression of PromQL asks for."""
    return set(METRIC.findall(QUOTED.sub('""', expression)))


@pytest.mark.skipif(deploy_check.promtool() is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_finds_no_fault() -> None:
    assert deploy_check.failures(str(deploy_check.promtool())) == []


@pytest.mark.parametrize("rule", NAMED)
def test_an_alert_asks_for_documented_metrics(rule: Any) -> None:
    assert metrics(rule["expr"])
    assert metrics(rule["expr"]) <= documented_metrics()


@pytest.mark.parametrize("rule", NAMED)
def test_an_alert_says_what_is_wrong_and_where_to_read_on(rule: Any) -> None:
    severity, reason = rule["labels"]["severity"], rule["labels"].get("reason")
    told = rule["annotations"]
    assert severity in {"critical", "warning", "info"}
    assert told["summary"]
    page, _, anchor = told["runbook"].partition("#")
    assert page == "docs/runbook.md"
    assert anchor in anchors(page)
    codes = [
        code
        for part in re.findall(r"\[([^\]]*)\]", told["description"])
        for code in re.findall(r"\b\w+_\w+\b", part)
        if code in REASONS
    ]
    if severity != "info":
        assert codes, "the description names no reason code"
    if reason is not None:
        assert reason in REASONS
        assert reason in codes


def test_every_alert_is_seen_firing_and_seen_silent() -> None:
    fired: set[str] = set()
    silent: set[str] = set()
    for case in RULE_TESTS["tests"]:
        for question in case.get("promql_expr_test", ()):
            (alert,) = re.findall(r'alertname="(\w+)"', question["expr"])
            (fired if question["exp_samples"] else silent).add(alert)
    names = {rule["alert"] for rule in ALERTS}
    assert fired == names
    assert silent == names


def test_codes_that_rules_select_by_exist() -> None:
    for rule in ALERTS:
        for pattern in re.findall(r'reason=~?"([^"]+)"', rule["expr"]):
            assert set(pattern.split("|")) <= REASONS.keys()


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-kubernetes.yml"])
def test_scrapes_send_a_token_from_a_file_and_name_the_jobs_of_rules_and_dashboard(name: str) -> None:
    (configuration,) = yaml_documents(FOLDER / name)
    jobs = configuration["scrape_configs"]
    assert {job["job_name"] for job in jobs} == {"ops-manager", "sprite-agent"}
    for job in jobs:
        assert job["authorization"] == {"type": "Bearer", "credentials_file": "spritemesh.token"}
    used = {job for rule in ALERTS for job in re.findall(r'job="([^"]+)"', rule["expr"])}
    used |= {job for query in dashboard.expressions() for job in re.findall(r'job="([^"]+)"', query)}
    assert used == {"ops-manager", "sprite-agent"}


def test_the_dashboard_is_current() -> None:
    assert (ROOT / dashboard.PAGE).read_text("utf-8") == dashboard.built()


def test_the_dashboard_asks_for_documented_metrics() -> None:
    for query in dashboard.expressions():
        assert metrics(query)
        assert metrics(query) <= documented_metrics()


def test_the_dashboard_lets_one_choose_source_and_loops() -> None:
    document = json.loads(dashboard.built())
    assert [item["name"] for item in document["templating"]["list"]] == ["datasource", "manager", "loop"]
    panels = [panel for panel in document["panels"] if panel["type"] != "row"]
    assert all(panel["datasource"]["uid"] == "$datasource" for panel in panels)
    titles = [panel["title"] for panel in document["panels"]]
    assert all(titles)


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(dashboard.built())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_every_metric_of_the_manager_is_shown_or_watched() -> None:
    used = set().union(*(metrics(query) for query in dashboard.expressions()))
    used |= set().union(*(metrics(rule["expr"]) for rule in ALERTS))
    left_out = {"ops_manager_loops_shown", "ops_manager_loops_not_shown", "ops_manager_info"}
    left_out |= {"ops_manager_loop_connected"}  # of the variable `loop`
    assert {name for name in documented_metrics() if name.startswith("ops_manager_")} - used == left_out
