"""One run with a temperature and its export, for all tests of exports: a conversion takes seconds."""

import shutil

import pytest

from brainstage.exports.export import export
from brainstage.stats.calibration import Calibration, CalibrationParameters


@pytest.fixture(scope="session")
def calibrated(trained, tmp_path_factory):
    """Return a run whose scores have a temperature."""
    run = shutil.copytree(trained.path, tmp_path_factory.mktemp("runs") / "calibrated")
    parameters = {1: CalibrationParameters(4.0, 0.21), 2: CalibrationParameters(2.0, 0.22)}
    Calibration(20, parameters).save(run / "model")
    return run


@pytest.fixture(scope="session")
def exported(calibrated, phantom, tmp_path_factory):
    """Return its export."""
    return export(calibrated, tmp_path_factory.mktemp("exports") / "new", slices=phantom)


@pytest.fixture
def copied(exported, tmp_path):
    """Return a copy of the exported folder to break."""
    return shutil.copytree(exported.folder, tmp_path / "copy")


@pytest.fixture
def converted_before(exported, monkeypatch):
    """Have ``export`` take the network that was converted before."""
    converted = exported.folder / "model" / "model.onnx"
    monkeypatch.setattr(
        "brainstage.exports.export.to_onnx", lambda _network, _pixels, file: shutil.copyfile(converted, file)
    )
