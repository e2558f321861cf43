"""`rendermill.json`: the format that an output's first run chose, and that later runs keep."""

import json
from typing import get_args

import pyarrow as pa

from rendermill.manifests.arrow.types import holds
from rendermill.manifests.errors import UserError, one_line
from rendermill.manifests.output import layout
from rendermill.manifests.schema import FORMAT_VERSION
from rendermill.manifests.storage.folder import Folder

_NO_JSON = (ValueError, TypeError, RecursionError)


def ensure_format(folder: Folder, extra: pa.Schema, media_layout: layout.Layout) -> pa.Schema:
    """Write the format of a new output, or check that an output has this format.

    Args:
        folder: The output.
        extra: The manifest's own columns.
        media_layout: How media are stored.

    Returns:
        The extra columns of the output, with the types that its first run gave them.

    Raises:
        UserError: As for `read_format`.
    """
    stored = read_format(folder, extra, media_layout)
    if stored is not None:
        return stored
    return _write_format(folder, extra, media_layout)


def _write_format(folder: Folder, extra: pa.Schema, media_layout: layout.Layout) -> pa.Schema:
    content = {
        "format_version": FORMAT_VERSION,
        "layout": media_layout,
        "extra_columns": {field.name: str(field.type) for field in extra},
        "extra_schema": extra.serialize().to_pybytes().hex(),
    }
    if folder.create(layout.FORMAT_FILE, json.dumps(content, indent=2).encode()):
        return extra
    return read_format(folder, extra, media_layout) or extra  # an earlier holder has written it meanwhile


def read_format(folder: Folder, extra: pa.Schema, media_layout: layout.Layout) -> pa.Schema | None:
    """Check that an output has this format, and return its extra columns; None if there is no output yet.

    Args:
        folder: The output.
        extra: The manifest's own columns.
        media_layout: How media are to be stored.

    Raises:
        UserError: The output was made by a newer rendermill, or has another layout, or extra columns of other types.
    """
    stored = stored_format(folder)
    if stored is None:
        return None
    first, its_layout = stored
    if its_layout != media_layout:
        raise UserError(
            f"{media_layout}, but output {folder.url} began with {its_layout}; "
            f"write `layout: {its_layout}`, or give another output",
            ("layout",),
        )
    for field in extra:
        if field.name not in first.names or not holds(first.field(field.name).type, field.type):
            had = first.field(field.name).type if field.name in first.names else "absent"
            raise UserError(
                f"column `{field.name}` is {field.type}, but {had} in the first run of output "
                f"{folder.url}; the extra columns of an output stay as they began",
                ("manifest",),
            )
    return first


def stored_format(folder: Folder) -> tuple[pa.Schema, layout.Layout] | None:
    """Return the extra columns of an output and how its media are stored; None if there is no output yet.

    Raises:
        UserError: The output was made by a newer rendermill, or its format cannot be read.
    """
    stored = folder.read(layout.FORMAT_FILE)
    if stored is None:
        return None
    refuse_newer(folder.url, stored)
    try:
        content = dict(json.loads(stored))
        schema = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(content["extra_schema"])))
        if content["layout"] not in get_args(layout.Layout):
            raise ValueError(f"layout {content['layout']!r}")
    except (*_NO_JSON, KeyError, pa.ArrowException) as error:
        raise UserError(
            f"{layout.FORMAT_FILE} cannot be read ({type(error).__name__}: {one_line(error)}); "
            "put it back as it was, or delete it, and the next run writes it again from its job and manifest",
            ("output",),
            folder.url,
        ) from error
    return schema, content["layout"]


def refuse_newer(url: str, stored: bytes) -> None:
    """Raise a `UserError` if a newer rendermill wrote the format file, even if this one cannot read the rest of it.

    Args:
        url: The output.
        stored: The file's content.
    """
    try:
        version = dict(json.loads(stored)).get("format_version")
    except _NO_JSON:
        return
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise UserError(
            f"its format {version} is newer than this rendermill's {FORMAT_VERSION}; upgrade rendermill",
            ("output",),
            url,
        )
