"""Ctrl-C reaches tests and what they start, also where a shell put pytest into the background."""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been inherited as ignored
