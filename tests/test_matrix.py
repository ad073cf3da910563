"""The long matrix of `make test-all`: the stored outputs hold on a stranger's machine too."""

import os
import shutil
from pathlib import Path

import pytest
import reader

from course_utils import sync

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


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("path", sync.notebooks(), ids=lambda path: path.stem)
def test_strict_outputs_hold_elsewhere(tmp_path, path, machine):
    """From a folder in which nobody may write."""
    notebook = Path(shutil.copy(path, tmp_path))
    tmp_path.chmod(0o555)
    reader.strict(notebook, environment=os.environ | MACHINES[machine])
