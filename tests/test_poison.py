"""Items that end, stop or hang their process in any stage: they become failures, and every other item is drawn."""

from conftest import Rendermill, sabotaged_by

POISON = {
    "raises in drawing": ("ValueError", "poison"),
    "interrupts drawing": ("KeyboardInterrupt", "KeyboardInterrupt"),
    "is unspeakable in drawing": ("Unspeakable", "its message cannot be read"),
    "segfaults in drawing": ("WorkerDied", "3 times while it drew this item alone: signal SIGSEGV"),
    "hangs in drawing": ("DeadlinePassed", "3 times while it drew this item alone: not done after 4 s"),
    "interrupts encoding": ("KeyboardInterrupt", "KeyboardInterrupt"),
    "is unspeakable in encoding": ("Unspeakable", "its message cannot be read"),
    "stops in encoding": (
        "DeadlinePassed",
        "3 times while it encoded this item alone: the process did not answer for 4 s",
    ),
    "exits in encoding": ("WorkerDied", "3 times while it encoded this item alone: it ended without a message"),
    "is killed in storing": ("WorkerDied", "3 times while it stored this item alone: it ended without a message"),
}
"""What an item does, and its failure: type, and part of the message."""


def test_poison_costs_the_poisonous_items_alone(rendermill: Rendermill) -> None:
    pool = {"min_actors": 2, "max_actors": 2, "num_cpus": 0.2}
    rendermill.model("sana", "sana-shapes", deadline=4.0, batch=4, reference_batch=1, pool=pool)
    rows = [{"id": str(index), "prompt": f"prompt {index}"} for index in range(40)]
    for index, way in enumerate(POISON):
        rows[4 * index + 1]["prompt"] = f"an item that {way}"
        if way == "is killed in storing":
            rows[4 * index + 1]["id"] = "deadly"
    rendermill.manifest(rows)
    finished = rendermill.run("generate", rendermill.write_job(), **sabotaged_by("poison"))
    assert finished.status == 3, finished
    assert "30 items finished, 10 failed, 0 rejected" in finished.out
    assert "processes that died at work, 4: WorkerDied: signal SIGSEGV" in finished.out
    assert {row["id"] for row in rendermill.table("metadata")} == {r["id"] for r in rows if "that" not in r["prompt"]}
    failures = {row["prompt"].removeprefix("an item that "): row for row in rendermill.table("failures")}
    assert {way: row["error_type"] for way, row in failures.items()} == {way: kind for way, (kind, _) in POISON.items()}
    for way, (_, words) in POISON.items():
        assert words in failures[way]["error"], failures[way]

    assert rendermill.run("retry", rendermill.output).status == 0, "without the poison they can be drawn"
    assert len(rendermill.table("metadata")) == 40
    assert rendermill.table("failures") == []
