"""Of two processes that want the same, one waits or is refused."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.logs import logged

from lits_helpers.machine import locked_folder


@pytest.mark.parametrize("purpose", ["", "download"])
def test_second_to_ask_for_a_folder_waits_or_is_refused(tmp_path, caplog, purpose):
    caplog.set_level(logging.INFO)
    done = []

    def work():
        with locked_folder(tmp_path, purpose=purpose):
            done.append("second")

    with ThreadPoolExecutor(1) as pool:
        with locked_folder(tmp_path, purpose=purpose):
            with pytest.raises(OSError, match=f"works in {tmp_path}: come later"):
                locked_folder(tmp_path, "come later", purpose).__enter__()
            waiting = pool.submit(work)
            time.sleep(0.3)
            assert not done
            with locked_folder(tmp_path, "", "another"):
                pass
        waiting.result(timeout=10)
    assert logged(caplog, "waiting", str(tmp_path))
    assert list(tmp_path.iterdir()) == []
