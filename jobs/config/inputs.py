"""The section `inputs` of a job file: which images and videos rows may name, and what is done with them."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rendermill.jobs.config.quantities import Duration, Size


def _place(value: str) -> str:
    """Return a place of inputs unchanged if it is a folder, a URL, or `https://` for every https URL."""
    if value.lower().startswith(("file:", "local:")):
        raise ValueError("should be a path without a scheme, such as /data/images, or a URL such as s3://bucket/folder")
    if not value or "::" in value or ("://" in value and ".." in value.split("/")):
        raise ValueError("should be a folder or a URL, without `..` and `::`")
    return value


class InputsConfig(BaseModel):
    """The rules for images and videos that rows name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allow: list[Annotated[str, AfterValidator(_place)]] | None = Field(
        None,
        description="The places of inputs, beside the manifest's folder: `[s3://bucket/, data/]`; null: any https URL.",
    )
    private_networks: bool = Field(
        False, description="Inputs may come from private, link-local and loopback addresses."
    )
    max_bytes: Size = Field("64MiB", validate_default=True, description="The largest size of a file.")
    timeout: Duration = Field(timedelta(seconds=30), description="The time that one attempt to fetch a file may take.")
    s3_endpoint: str | None = Field(
        None, description="The URL of the S3 server of inputs outside the manifest's folder; null: the job's own."
    )
    s3_profile: str | None = Field(
        None, description="The profile in AWS's files whose credentials read these inputs; null: the job's own."
    )
    fit: Literal["error", "crop", "pad", "stretch"] = Field(
        "error", description="What is done with an input that has to have the request's size and has another one."
    )
