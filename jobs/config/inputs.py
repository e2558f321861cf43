"""The section `inputs` of a job file: which images and videos rows may name, and what is done with them."""

from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rendermill.jobs.config.quantities import Duration, Size


class InputsConfig(BaseModel):
    """The rules for images and videos that rows name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allow: list[str] | None = Field(
        None,
        description="The places of inputs, beside the manifest's folder: `[s3://bucket/, data/]`; null: any https URL.",
    )
    private_networks: bool = Field(
        False, description="Inputs may come from private, link-local and loopback addresses."
    )
    max_bytes: Size = Field("64MiB", validate_default=True, description="The largest size of a file.")
    timeout: Duration = Field(timedelta(seconds=30), description="The time that one attempt to fetch a file may take.")
    fit: Literal["error", "crop", "pad", "stretch"] = Field(
        "error", description="What is done with an input that has to have the request's size and has another one."
    )
