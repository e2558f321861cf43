"""Signals that strike a run while it commits."""

import json

import pyarrow.parquet as pq

from tests.support.commands import Rendermill, sabotaged_by


def test_signals_in_a_roll_up_double_and_lose_nothing_and_say_what_is_true(rendermill: Rendermill) -> None:
    rendermill.model("sana", "sana-shapes")
    rows = [{"id": str(index), "prompt": f"prompt {index}"} for index in range(4)]
    rendermill.manifest(rows)
    job = rendermill.write_job()
    first = rendermill.run("generate", job, SIGNALS="SIGTERM SIGINT", **sabotaged_by("signalled"))
    assert first.status == 0, first
    assert "interrupted" not in first.out + first.error, "all was rendered and committed"
    rendermill.manifest([row | {"num_inference_steps": 3} for row in rows])
    again = rendermill.run("generate", job, SIGNALS="SIGINT SIGTERM", **sabotaged_by("signalled"))
    assert again.status == 0, again
    records = rendermill.table("metadata")
    assert sorted((record["id"], record["num_inference_steps"]) for record in records) == [
        (row["id"], 3) for row in rows
    ]
    assert all((rendermill.output / record["path"]).exists() for record in records)
    replaced = list((rendermill.output / "media").rglob("*.png"))
    assert len(replaced) == 8, "whoever listed the records before still finds their files"
    states = [json.loads(path.read_text())["state"] for path in (rendermill.output / "runs").iterdir()]
    assert states == ["finished", "finished"]
    assert pq.read_table(rendermill.output / "metadata").num_rows == 4
