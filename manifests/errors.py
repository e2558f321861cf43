"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake of the user's. Its message is one line that names the file, key or row and what would be right."""


def one_line(error: BaseException, max_length: int = 300) -> str:
    """An exception's message on a single line, for an error message or a table cell."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= max_length else text[: max_length - 1] + "…"
