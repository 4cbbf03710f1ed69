"""What the conftest.py files of tests/system and tests/fault share: rigs as fixtures, and their logs in a report."""

import pytest

import rig as rig_module

alive = []


def make(request, **options):
    """A rig that ends with the scope of `request`."""
    made = rig_module.Rig(**options)
    alive.append(made)

    def end():
        alive.remove(made)
        made.close()

    request.addfinalizer(end)
    return made


@pytest.fixture()
def new_rig(request):
    """A function that makes a rig for this test alone."""
    return lambda **options: make(request, **options)


@pytest.fixture(scope="module")
def rig(request):
    """One rig for the file, made with its RIG (options of rig.Rig)."""
    return make(request, **request.module.RIG)


@pytest.fixture()
def sim(rig):
    """The simulator, with no rule and an empty journal."""
    rig.sim.reset()
    return rig.sim


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for each in alive:
            if each.folder.exists():
                report.sections.append((f"logs of {each.folder}", each.tails(60)))
