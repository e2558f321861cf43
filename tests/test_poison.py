"""Items that end or hang their process: they become failures, and every other item is drawn."""

from conftest import Rendermill, sabotaged_by

POISON = {"raises": "ValueError", "segfaults": "WorkerDied", "exits": "WorkerDied", "hangs": "DeadlinePassed"}


def test_poison_costs_the_poisonous_items_alone(rendermill: Rendermill) -> None:
    pool = {"min_actors": 2, "max_actors": 2, "num_cpus": 0.2}
    rendermill.model("sana", "sana-shapes", deadline=4.0, batch=4, reference_batch=1, pool=pool)
    rows = [{"id": str(index), "prompt": f"prompt {index}"} for index in range(40)]
    for index, way in enumerate(POISON):
        rows[10 * index + 5]["prompt"] = f"an item that {way}"
    rendermill.manifest(rows)
    finished = rendermill.run("generate", rendermill.write_job(), **sabotaged_by("poison"))
    assert finished.status == 3, finished
    assert "36 items finished, 4 failed, 0 rejected" in finished.out
    assert {row["id"] for row in rendermill.table("metadata")} == {r["id"] for r in rows if "that" not in r["prompt"]}
    failures = rendermill.table("failures")
    assert {row["prompt"].split()[-1]: row["error_type"] for row in failures} == POISON
    deaths = [row["error"] for row in failures if row["error_type"] != "ValueError"]
    assert all("3 times while it drew this item alone" in error for error in deaths)

    assert rendermill.run("retry", rendermill.output).status == 0, "without the poison they can be drawn"
    assert len(rendermill.table("metadata")) == 40
    assert rendermill.table("failures") == []
