"""Colab's secrets: a test fills `secrets`, `denied` and `unanswered`."""

from .errors import Error

secrets: dict[str, str] = {}
denied: set[str] = set()  # the user has not given this notebook access
unanswered: set[str] = set()  # the user did not answer the question


class NotebookAccessError(Exception):
    """The notebook may not read the secret."""


class SecretNotFoundError(Error):
    """There is no such secret."""


class TimeoutException(Error):
    """Nobody answered in time."""


def get(key):
    """Return the secret as Colab does, or raise one of the three."""
    if key in unanswered:
        raise TimeoutException(f"requesting secret {key} timed out")
    if key not in secrets:
        raise SecretNotFoundError(f"secret {key} does not exist")
    if key in denied:
        raise NotebookAccessError(f"notebook does not have access to secret {key}")
    return secrets[key]
