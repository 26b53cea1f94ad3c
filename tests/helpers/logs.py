"""What tests ask of the log: which case a line names and which cure, not how it is worded."""


def logged(caplog, *words: str) -> int:
    """Return the number of log lines that hold all these words."""
    return sum(all(word in message for word in words) for message in caplog.messages)
