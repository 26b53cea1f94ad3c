"""How form fields and LITS_* variables become settings."""

from pathlib import Path

import pytest

from lits_helpers.settings import anchor_folders, load_settings, real_data

VARIABLES = ("TINY", "SOURCE", "RAW", "PREPARED", "RUNS", "DEVICE", "REAL")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(f"LITS_{name}", raising=False)


def test_nothing_given_means_phantoms_below_the_root(tmp_path):
    settings = load_settings(tmp_path)
    assert (settings.source, settings.tiny, settings.drive) == ("phantom", False, False)
    assert settings.device is None
    for folder in (settings.raw, settings.prepared, settings.runs):
        assert tmp_path in folder.parents


def test_runs_of_different_data_never_share_a_folder(tmp_path):
    folders = [
        folder
        for source in ("phantom", "folder", "kaggle", "msd")
        for tiny in (False, True)
        for settings in [load_settings(tmp_path, source=source, tiny=tiny)]
        for folder in (settings.raw, settings.prepared, settings.runs)
    ]
    assert len(set(folders)) == 24


def test_an_empty_form_field_leaves_the_default(tmp_path):
    assert load_settings(tmp_path, raw="", device=None) == load_settings(tmp_path)


def test_a_form_field_reaches_the_settings(tmp_path):
    settings = load_settings(tmp_path, source="folder", raw="scans", drive=True, tiny=True)
    assert (settings.source, settings.raw) == ("folder", Path("scans"))
    assert settings.drive
    assert settings.tiny


def test_a_variable_wins_over_the_form(tmp_path, monkeypatch):
    for name, value in {
        "TINY": "0",
        "SOURCE": "kaggle",
        "RAW": "r",
        "PREPARED": "p",
        "RUNS": "o",
        "DEVICE": "cpu",
    }.items():
        monkeypatch.setenv(f"LITS_{name}", value)
    settings = load_settings(tmp_path, tiny=True, source="folder", raw="elsewhere", device="cuda")
    assert (settings.tiny, settings.source, settings.device) == (False, "kaggle", "cpu")
    assert (settings.raw, settings.prepared, settings.runs) == (Path("r"), Path("p"), Path("o"))


def test_folders_mean_the_same_in_another_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITS_RAW", "../scans")
    monkeypatch.setenv("LITS_RUNS", "")
    anchor_folders()
    monkeypatch.chdir("/")
    assert load_settings().raw == tmp_path.parent / "scans"
    assert load_settings().runs == Path("runs/phantom")


def test_an_empty_variable_says_nothing(tmp_path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(f"LITS_{name}", "")
    assert load_settings(tmp_path, tiny=True, source="folder").tiny
    assert load_settings(tmp_path, tiny=True, source="folder").source == "folder"
    assert real_data() is None


@pytest.mark.parametrize("value", ["1", "true", "YES", " 1 "])
def test_tiny_is_switched_on(tmp_path, monkeypatch, value):
    monkeypatch.setenv("LITS_TINY", value)
    assert load_settings(tmp_path).tiny


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("LITS_TINY", "maybe", "LITS_TINY must be 1 or 0, got 'maybe'"),
        ("LITS_SOURCE", "lits", "one of phantom, folder, kaggle, msd, got 'lits'"),
    ],
)
def test_a_wrong_variable_is_named_with_its_choices(tmp_path, monkeypatch, variable, value, words):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=words):
        load_settings(tmp_path)


def test_an_unknown_setting_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such setting: epochs"):
        load_settings(tmp_path, epochs=3)


def test_real_data_lies_where_the_variable_says(monkeypatch):
    monkeypatch.setenv("LITS_REAL", "scans/real")
    assert real_data() == Path("scans/real")


def test_home_is_meant_by_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LITS_PREPARED", "~/prepared")
    settings = load_settings(tmp_path / "root", raw="~/raw")
    assert (settings.prepared, settings.raw) == (tmp_path / "prepared", tmp_path / "raw")
    anchor_folders()
    assert load_settings().prepared == tmp_path / "prepared"
