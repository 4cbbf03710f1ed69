import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "harness"))

from rig_pytest import new_rig, pytest_runtest_makereport, rig, sim  # noqa: E402,F401
