"""The long matrix, page 02 of it in `make test`: the stored outputs hold on a stranger's machine too."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest
import reader

# The instructions PyTorch and NumPy may use, threads, the order of sets, the language and the hour.
MACHINES = {
    "an old processor": {
        "ATEN_CPU_CAPABILITY": "default",
        "OPENBLAS_CORETYPE": "Prescott",
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "1",
        "LC_ALL": "C",
        "TZ": "Pacific/Kiritimati",
    },
    "a new processor": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "OPENBLAS_CORETYPE": "Haswell",
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "PASSIVE",  # two that spin while they wait take minutes beside other work
        "PYTHONHASHSEED": "random",
        "LC_ALL": "tr_TR.UTF-8",
        "TZ": "America/St_Johns",
    },
}


@pytest.mark.parametrize("machine", MACHINES)
@reader.each_page(quick="02")
def test_strict_outputs_hold_elsewhere(tmp_path, path, machine):
    """From a folder in which nobody may write."""
    notebook = Path(shutil.copy(path, tmp_path))
    tmp_path.chmod(0o555)
    reader.strict(notebook, environment=os.environ | MACHINES[machine])


@pytest.mark.slow
def test_a_locked_folder_is_locked_to_root_too(tmp_path):
    """Else the test above would test nothing where tests run as root."""
    cell = nbformat.v4.new_code_cell("open('here', 'w')", execution_count=1)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "writes.ipynb")
    reader.strict(tmp_path / "writes.ipynb", "--nbval-lax")
    (tmp_path / "here").unlink()
    tmp_path.chmod(0o555)
    with pytest.raises(AssertionError, match="PermissionError"):
        reader.strict(tmp_path / "writes.ipynb", "--nbval-lax")
