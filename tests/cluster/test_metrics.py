"""What Prometheus and Grafana see of a run."""

import json
import re
import urllib.request
import uuid
from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.local_cluster import Cluster
from rendermill.actors.services.metrics import EXPORTED
from tests.support.commands import ROOT, Rendermill

DASHBOARD = ROOT / "deploy" / "grafana" / "rendermill.json"


def test_what_a_run_tells_prometheus_and_its_log(rendermill: Rendermill, cluster: Cluster) -> None:
    model = f"sana-{uuid.uuid4().hex}"  # other tests' runs are in the same places
    rendermill.model(model, "sana-shapes")
    rows = [{"id": str(index), "prompt": f"secret wish {index}"} for index in range(5)]
    rows[2]["guidance_scale"] = 3e38  # comes out as NaN
    rendermill.manifest(rows)
    job = rendermill.write_job(reproducibility="fast")
    assert rendermill.run("generate", job, RAY_LOGGING_CONFIG_ENCODING="JSON").status == 3

    with urllib.request.urlopen(cluster.metrics) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    seen: Counter[str] = Counter()
    for sample in (sample for family in families for sample in family.samples):
        if sample.labels.get("model") == model:
            seen[sample.name] += sample.value
    assert seen["ray_rendermill_items_finished_total"] == 4
    assert seen["ray_rendermill_items_failed_total"] == 1
    records = rendermill.table("metadata")
    assert seen["ray_rendermill_media_written_bytes_total"] == sum(record["bytes"] for record in records)
    assert set(EXPORTED) <= set(seen)

    logged = [line for path in cluster.logs.glob("worker-*.err") for line in path.read_text().splitlines()]
    (line,) = (json.loads(line) for line in logged if model in line and line.startswith("{"))
    run_id = records[0]["run_id"]
    assert (line["run"], line["model"], line["item"], line["attempt"]) == (run_id, model, "2", 1)
    assert line["message"] == "item '2' failed; why is in failures/"
    assert not [line for line in logged if "secret wish" in line]


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
