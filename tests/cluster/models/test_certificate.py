"""The certificate of a model, as users meet it: refused, kept between runs, and told."""

import json

from tests.support.commands import Rendermill, sabotaged_by


def test_strict_mode_refuses_a_seed_that_does_not_decide_unless_it_was_proven_before(rendermill: Rendermill) -> None:
    rendermill.model("sana", "sana-shapes", defaults={"negative_prompt": "a square"})
    rendermill.manifest([{"prompt": "a circle"}])
    broken = sabotaged_by("global_noise")
    refused = rendermill.run("generate", rendermill.write_job(), **broken)
    assert refused.status == 1, refused
    (line,) = [line for line in refused.out.splitlines() if line.startswith("stopped: ")]
    assert line.startswith(
        "stopped: sana: SeedDoesNotDecide: the same request gave other pixels the second time, under other global "
        "seeds, so strict mode cannot be kept; reproducibility: fast renders with this model; details in "
    )
    assert "Traceback" not in refused.out + refused.error
    assert rendermill.table("metadata") == rendermill.table("failures") == [], "no row was rendered"
    assert "  sana: the seed decides: refuted: the same request gave other pixels" in refused.out

    fast = rendermill.run("generate", rendermill.write_job(), "reproducibility=fast", **broken)
    assert fast.status == 0, fast
    assert "  sana: the seed decides: refuted: the same request gave other pixels" in fast.out

    # another checkpoint's certificate is proven, kept, and not made again by a process in which it would be refuted
    rendermill.model("sana", "sana-sprint-shapes")
    for num_rows, environment in ((2, {}), (3, broken)):
        rendermill.manifest([{"prompt": f"a circle {number}"} for number in range(num_rows)])
        rendered = rendermill.run("generate", rendermill.write_job(), **environment)
        assert rendered.status == 0, rendered
        assert "refuted" not in rendered.out
    planned = rendermill.run("plan", rendermill.write_job())
    told = [line for line in planned.out.splitlines() if ": proven: " in line]
    assert told == [
        "  the seed decides: proven: the same request gave the same bits twice, under different global seeds",
        "  the seed matters: proven: another seed gave other pixels",
        "  guidance_scale has an effect: proven: 6.5 in place of 4.5 gave other pixels",
    ]
    run = max((rendermill.output / "runs").iterdir())
    found = json.loads(run.read_text())["found"]["models"]["sana"]
    assert found["actors_at_work"] <= 1, "the time of the certificate is time at work within the time that passed"
    certificate = found["certificate"]
    assert [statement["verdict"] for statement in certificate] == ["proven"] * 3

    changed = rendermill.run("generate", rendermill.write_job(), "models.sana.vae_tiling=true", **broken)
    assert (changed.status, "SeedDoesNotDecide" in changed.out) == (1, True), "other settings need a proof of their own"
