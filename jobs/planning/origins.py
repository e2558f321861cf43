"""Where an output's records were made, next to where this run draws: another GPU or torch may draw other pixels."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import ray

from rendermill.jobs.config.job import Pool
from rendermill.jobs.planning.models import ResolvedModel
from rendermill.manifests.output.ledger.origins import Origin


def current_origins(
    models: Mapping[str, ResolvedModel], pools: Mapping[str, Pool], num_gpus: Mapping[str, float]
) -> dict[str, Origin]:
    """Where each model would draw now, as tasks with its actors' resources find it.

    Args:
        num_gpus: per actor, by model.
    """
    tasks = {
        name: ray.remote(
            num_cpus=pools[name].num_cpus, num_gpus=num_gpus[name], label_selector=pools[name].label_selector
        )(_look_around).remote(name, model.settings.compile)
        for name, model in models.items()
    }
    return {name: ray.get(task) for name, task in tasks.items()}


def _look_around(model: str, is_compiled: bool) -> Origin:
    from rendermill.actors.environment import device_name, environment, make_deterministic

    device = make_deterministic(is_compiled)
    return Origin(model, device_name(device), environment(device, is_compiled))


def made_elsewhere(origins: Iterable[Origin], current: Mapping[str, Origin]) -> list[Origin]:
    """Those of the origins that are not where their model draws now."""
    return [origin for origin in origins if origin.model in current and current[origin.model] != origin]


def describe_change(before: Origin, now: Origin) -> str:
    """What differs, such as "sana: device NVIDIA A100 → NVIDIA H100, torch 2.11.0 → 2.13.0"."""
    return f"{now.model}: {differing(_as_dict(before), _as_dict(now))}"


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two environments, in words; empty where nothing does."""
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return ", ".join(f"{name} {before.get(name)} → {now.get(name)}" for name in names)


def _as_dict(origin: Origin) -> dict[str, Any]:
    return {"device": origin.device} | json.loads(origin.environment)
