import pkgutil
import re
import subprocess
import sys
from importlib.metadata import version
from types import ModuleType

import pytest

import distpert


@pytest.mark.parametrize("name", distpert.__all__)
def test_public_name_resolves_is_listed_and_documented(name):
    value = getattr(distpert, name)
    assert name in dir(distpert)
    assert getattr(distpert, name) is value
    assert value.__doc__


def public_objects():
    for face in (distpert, distpert.baselines, distpert.plots, distpert.datasets, distpert.scores, distpert.statistics):
        for name in face.__all__:
            value = getattr(face, name)
            if callable(value) and getattr(value, "__module__", "").startswith("distpert"):
                yield pytest.param(value, id=f"{face.__name__}.{name}")


@pytest.mark.parametrize("value", list(public_objects()))
def test_public_functions_and_classes_have_examples_and_related_names(value):
    sections = re.findall(r"^ *(\S[^\n]*)\n *-{3,}$", value.__doc__, re.MULTILINE)
    assert "Examples" in sections
    assert "See Also" in sections


def test_every_lazy_name_is_public():
    assert {*distpert._MODULE, *distpert._SUBMODULES, "__version__"} == set(distpert.__all__)


def test_no_public_function_or_class_has_the_name_of_a_module():
    modules = {module.name for module in pkgutil.iter_modules(distpert.__path__)}
    shadowed = modules & set(distpert.__all__)
    assert all(isinstance(getattr(distpert, name), ModuleType) for name in shadowed)


def test_version_is_that_of_the_distribution():
    assert distpert.__version__ == version("distpert")


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = distpert.no_such_name


@pytest.mark.parametrize("statement", ["import distpert", "import distpert.datasets"])
def test_import_loads_nothing_heavy(statement):
    heavy = {"anndata", "arviz", "h5py", "jax", "matplotlib", "numpyro", "pandas", "scipy", "xarray"}
    code = f"import sys; {statement}; print(*sys.modules)"
    # Isolated from the environment, where a coverage or debugging hook could import things of its own.
    loaded = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert heavy.isdisjoint(loaded.stdout.split())
