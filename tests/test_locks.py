"""Of two processes that want the same, one waits or is refused; any number may hold a share."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lits_helpers.locks import hold, locked_folder, unheld


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
    assert "waiting for the process" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_share_is_seen_until_the_last_one_is_given_back(tmp_path):
    shares = [hold(tmp_path / "a.lock") for _ in range(2)]
    for share in shares:
        with unheld(tmp_path / "a.lock") as free:
            assert not free
        share.close()
    with unheld(tmp_path / "a.lock") as free:
        assert free
        with unheld(tmp_path / "a.lock") as twice:
            assert not twice


def test_where_no_lock_can_be_made_nothing_is_known(tmp_path):
    assert hold(tmp_path / "absent" / "a.lock") is None
    with unheld(tmp_path / "absent" / "a.lock") as free:
        assert free is None
