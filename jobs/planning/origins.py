"""Compare where records were made with where models would render now: another GPU or torch may give other pixels."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import ray

from rendermill.jobs.planning.prepare import PreparedModel
from rendermill.manifests.output.ledger.origins import Origin


def current_origins(models: Mapping[str, PreparedModel]) -> dict[str, Origin]:
    """Find out where each model would render now, by a task with the resources of its actors."""
    tasks = {
        name: ray.remote(
            num_cpus=model.config.pool.num_cpus,
            num_gpus=model.num_gpus,
            label_selector=model.config.pool.label_selector,
        )(_look_around).remote(name, model.resolved.settings.compile)
        for name, model in models.items()
    }
    return {name: ray.get(task) for name, task in tasks.items()}


def _look_around(model: str, is_compiled: bool) -> Origin:
    from rendermill.actors.environment import device_name, environment, make_deterministic

    device = make_deterministic(is_compiled)
    return Origin(model, device_name(device), environment(device, is_compiled))


def made_elsewhere(origins: Iterable[Origin], current: Mapping[str, Origin]) -> list[Origin]:
    """Return the origins that differ from where their model renders now."""
    return [origin for origin in origins if origin.model in current and current[origin.model] != origin]


def describe_change(before: Origin, now: Origin) -> str:
    """Return what differs, such as "sana: device NVIDIA A100 → NVIDIA H100, torch 2.11.0 → 2.13.0"."""
    return f"{now.model}: {differing(_as_dict(before), _as_dict(now))}"


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return what differs between two environments, in words; empty if nothing does."""
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return ", ".join(f"{name} {before.get(name)} → {now.get(name)}" for name in names)


def _as_dict(origin: Origin) -> dict[str, Any]:
    return {"device": origin.device} | json.loads(origin.environment)
