"""Further arguments of pipelines: the values that rows may give for each type, and what is said of others."""

import pickle
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from rendermill.jobs.config.job_file import parse_job
from rendermill.jobs.planning.models import make_validator, resolve_model
from rendermill.manifests.errors import RowProblem, UserError
from rendermill.manifests.rows import RowValidator
from rendermill.models.arguments import Argument
from tests.pipelines import equality, images

STRENGTH = Annotated[float, Field(0.6, ge=0, le=1)]


@pytest.mark.parametrize(
    ("of_type", "given", "read"),
    [
        (STRENGTH, 0.5, 0.5),
        (STRENGTH, 1, 1.0),
        (STRENGTH, 0.6, None),
        (STRENGTH, Decimal("0.25"), 0.25),
        (float, -0.0, 0.0),
        (int, 3.0, 3),
        (int, Decimal(3), 3),
        (int | None, 3, 3),
        (bool, True, True),
        (Literal["a", "b"], "b", "b"),
        (list[int], [1.0, 2.0], [1, 2]),
        (tuple[int, int], [3, 4], [3, 4]),
        (str, "", ""),
    ],
)
def test_a_value_that_suits_the_type_is_read(of_type: Any, given: Any, read: Any) -> None:
    found = pickle.loads(pickle.dumps(Argument(of_type)))("strength", given)
    assert (found, type(found), str(found)) == (read, type(read), str(read))


@pytest.mark.parametrize(
    ("of_type", "given", "problem"),
    [
        (STRENGTH, "a lot", "expected a number from 0 to 1, got 'a lot' (str)"),
        (STRENGTH, 1.5, "expected a number from 0 to 1, got 1.5 (float)"),
        (STRENGTH, True, "expected a number from 0 to 1, got True (bool)"),
        (float, float("nan"), "expected a number, got nan (float)"),
        (float, "1", "expected a number, got '1' (str)"),
        (int, 3.5, "expected a whole number, got 3.5 (float)"),
        (Annotated[int, Field(gt=2)], 2, "expected a whole number above 2, got 2 (int)"),
        (int | None, "x", "expected a whole number, got 'x' (str)"),
        (bool, 1, "expected true or false, got 1 (int)"),
        (Literal["a", "b"], "c", "expected one of 'a', 'b', got 'c' (str)"),
        (list[int], [1.5], "expected a list of a whole number, got [1.5] (list)"),
        (str, b"x", "expected text, got b'x' (bytes)"),
    ],
)
def test_any_other_value_is_refused_in_words(of_type: Any, given: Any, problem: str) -> None:
    with pytest.raises(RowProblem) as refused:
        Argument(of_type)("strength", given)
    assert str(refused.value) == f"strength: {problem}"


def test_the_job_file_and_rows_give_arguments_of_a_pipeline(tmp_path: Path) -> None:
    equality.save(equality.Case(images.sdxl, {}, {}), tmp_path)

    def resolved(**defaults: Any) -> RowValidator:
        models = {"model": {"checkpoint": str(tmp_path), "defaults": {"width": 64, "height": 64, **defaults}}}
        job = parse_job({"manifest": "m", "output": "o", "models": models}, "job.yaml")
        return make_validator(job, {"model": resolve_model(job, "model", on_gpu=False)})

    def arguments(validator: RowValidator, **row: Any) -> str | None:
        found: str | None = validator.item({"prompt": "a cat", **row}).settled.fields["arguments"]
        return found

    plain, rescaled = resolved(), resolved(guidance_rescale=0.5)
    assert [arguments(plain), arguments(plain, guidance_rescale=0)] == [None, None], "the pipeline's own default is 0"
    assert [arguments(rescaled), arguments(rescaled, guidance_rescale=0)] == ['{"guidance_rescale":0.5}', None]
    assert arguments(plain, original_size=[16.0, 32]) == '{"original_size":[16,32]}'
    with pytest.raises(UserError, match=r"defaults.guidance_rescal: unknown key; did you mean 'guidance_rescale'?"):
        resolved(guidance_rescal=0.5)
    with pytest.raises(UserError, match=r"defaults.guidance_rescale: expected a number, got 'much' \(str\)"):
        resolved(guidance_rescale="much")
    with pytest.raises(RowProblem, match=r"guidance_rescale: expected a number, got 'much' \(str\)"):
        arguments(plain, guidance_rescale="much")
