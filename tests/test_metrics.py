"""What Prometheus and Grafana see of a run."""

import json
import re
import urllib.request
from collections import Counter

from conftest import ROOT, Rendermill
from prometheus_client.parser import text_string_to_metric_families

from actors.metrics import EXPORTED
from benchmarks.local_cluster import Cluster

DASHBOARD = ROOT / "deploy" / "grafana" / "rendermill.json"


def test_prometheus_sees_what_a_run_did(rendermill: Rendermill, cluster: Cluster) -> None:
    model = f"sana-{rendermill.folder.name}"  # other tests' runs are on the same exporter
    rendermill.model(model, "sana-shapes")
    rendermill.manifest([{"prompt": f"prompt {index}"} for index in range(5)])
    assert rendermill.generate().status == 0
    with urllib.request.urlopen(cluster.metrics) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    seen: Counter[str] = Counter()
    for sample in (sample for family in families for sample in family.samples):
        if sample.labels.get("model") == model:
            seen[sample.name] += sample.value
    assert seen["ray_rendermill_items_finished_total"] == 5
    records = rendermill.table("metadata")
    assert seen["ray_rendermill_media_written_bytes_total"] == sum(record["bytes"] for record in records)
    assert set(EXPORTED) - set(seen) == {"ray_rendermill_items_failed_total"}


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = {name for expression in asked for name in re.findall(r"ray_\w+", expression)}
    assert names == set(EXPORTED)
    for expression in asked:
        (labels,) = re.findall(r"by \(([^)]*)\)", expression)
        (name,) = re.findall(r"ray_\w+", expression)
        assert set(labels.split(", ")) <= set(EXPORTED[name].info["tag_keys"]), expression
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
