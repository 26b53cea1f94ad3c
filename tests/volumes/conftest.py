"""What tests of DICOM share."""

import logging

import pytest


@pytest.fixture
def nobody_is_named(caplog):
    """Fail a test during which a log names the patient."""
    from helpers.drawn_dicom import PATIENT  # wants pydicom

    caplog.set_level(logging.DEBUG)
    yield
    assert PATIENT not in caplog.text
    assert "Jane" not in caplog.text
