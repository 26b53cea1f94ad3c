"""Arguments of the wrong kind, refused at a room's door with a sentence."""

import os
from collections.abc import Iterable


def require(value: object, attribute: str, name: str, wanted: str) -> None:
    """Refuse an argument that is not what a function takes, before anything fails deep inside.

    Args:
        value: the argument.
        attribute: what everything of the wanted kind has, for example "hu".
        name: of the argument, for the message.
        wanted: what to give, for example "a volume: read_volume(path)".

    Raises:
        TypeError: it lacks the attribute; the sentence names what was given and what to give.
    """
    if hasattr(value, attribute):
        return
    given = f"the text {value[:60]!r}" if isinstance(value, str) else f"a {type(value).__name__}"
    if isinstance(getattr(value, "shape", None), tuple):
        given += f" of shape {value.shape}"
    raise TypeError(f"{name} must be {wanted}, got {given}")


def few(names: Iterable[str], shown: int = 5) -> str:
    """Return the first names for a message: "a, b, c, ..."; long ones lose their middle."""
    names = list(names)
    texts = [name if len(name) <= 60 else f"{name[:30]}...{name[-25:]}" for name in names[:shown]]
    return ", ".join(texts if len(names) <= shown else [*texts, "..."])


def require_each(values: Iterable, attribute: str, name: str, wanted: str) -> list:
    """Return the values as a list, each as `require` wants it; a path is refused whole."""
    values = [values] if isinstance(values, (str, os.PathLike)) else list(values)
    for value in values:
        require(value, attribute, name, wanted)
    return values
