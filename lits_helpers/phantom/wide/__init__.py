"""The wide phantom: abdominal CT far more varied than real patients, for training only."""

from .case import wide_case

__all__ = ["wide_case"]
