"""A training stops cleanly, at a limit or a signal, and saves by the clock."""

import gc
import logging
import signal
import weakref

import pytest
import torch
from helpers.logs import logged
from helpers.small_runs import SPLIT, small_liver

from lits_helpers.datasets import SliceCache
from lits_helpers.training import stopping, train_liver_gan
from lits_helpers.training.engine import Trainer
from lits_helpers.training.stopping import StopRequest, Stopwatch
from lits_helpers.training.systems import LiverSystem


@pytest.mark.parametrize(
    ("name", "raised"),
    [("SIGTERM", SystemExit), ("SIGUSR1", SystemExit), ("SIGINT", KeyboardInterrupt)],
)
def test_signal_saves_the_position_first(slices, tmp_path, monkeypatch, name, raised):
    plain, before, done = LiverSystem.step, signal.getsignal(signal.SIGTERM), []

    def signalled(*arguments):
        done.append(plain(*arguments))
        if len(done) == 2:
            signal.raise_signal(getattr(signal, name))
        return done[-1]

    monkeypatch.setattr(LiverSystem, "step", signalled)
    with pytest.raises(raised) as caught:
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    if raised is SystemExit:
        assert caught.value.code == 128 + getattr(signal, name)
    state = torch.load(tmp_path / "checkpoints" / "last.pth", weights_only=True)
    assert (state["epoch"], state["step"]) == (1, 2)
    assert signal.getsignal(signal.SIGTERM) is before


def test_second_stop_of_the_notebook_stops_at_once():
    with StopRequest() as request:
        signal.raise_signal(signal.SIGINT)
        assert request.wanted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_checkpoints_within_an_epoch_come_by_the_clock(slices, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(stopping, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(Trainer, "save", lambda self, mirror: saved.append(self.at.step))
    train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=1), device="cpu")
    assert saved == [1, 2, 3, 0]


def test_what_a_stopped_training_held_is_let_go_though_its_error_is_kept(
    slices, tmp_path, monkeypatch
):
    plain, held = SliceCache.batch, []

    def batch(cache, *arguments, **options):
        held.append(weakref.ref(cache))
        signal.raise_signal(signal.SIGINT)
        return plain(cache, *arguments, **options)

    monkeypatch.setattr(SliceCache, "batch", batch)
    with pytest.raises(KeyboardInterrupt) as kept:
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    gc.collect()
    assert kept.value.__traceback__ is not None
    assert held[0]() is None


def test_limit_shorter_than_the_training_is_told(caplog):
    watch = Stopwatch(max_minutes=10)
    watch.began -= 60  # a minute ago
    with caplog.at_level(logging.INFO):
        watch.estimate(minutes_left=600)
    assert logged(caplog, "10 minutes", 'resume="auto"')
