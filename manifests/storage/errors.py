"""Errors of stores: each store's client raises its own, with URLs in them."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from rendermill.manifests.errors import Keys, LeaseLost, UserError, one_line, traceback_of
from rendermill.manifests.storage.retries import is_transient


@contextmanager
def as_user_errors(problem: str, keys: Keys = (), subject: str = "") -> Iterator[None]:
    """Turn every error within the block into a `UserError`.

    For the first access to a store: an error there means that the URL, the credentials or the network are wrong.

    Args:
        problem: What cannot be done, such as `cannot be read`; the message of the store follows.
        keys: The key of the job that names the store, as for `UserError`.
        subject: The URL, as for `UserError`.
    """
    try:
        yield
    except (UserError, LeaseLost):
        raise
    except Exception as error:
        raise UserError(f"{problem}: {one_line(error)}", keys, subject) from error


@contextmanager
def masked_errors() -> Iterator[None]:
    """Mask the secrets of URLs in every error that leaves the block.

    For tasks: Ray logs what they raise in files of its own. An error without secrets passes unchanged; another one is
    replaced by an error of which `is_transient` says the same.
    """
    try:
        yield
    except Exception as error:
        if traceback_of(error) == "".join(traceback.format_exception(error)):
            raise
        message = f"{type(error).__name__}: {one_line(error)}"
        raise (ConnectionError(message) if is_transient(error) else OSError(message)) from None
