"""The exceptions that Colab's modules raise."""


class Error(Exception):
    """Base of Colab's own exceptions."""


class MessageError(Error):
    """The browser answered with an error: the user closed or refused the dialogue."""
