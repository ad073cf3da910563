"""The long matrix of `make test-all`: the stored outputs hold on a stranger's processor too."""

import os
import subprocess
import sys

import pytest

from course_utils import sync

MACHINES = [
    {"ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "Prescott", "OMP_NUM_THREADS": "1"},
    {"ATEN_CPU_CAPABILITY": "avx2", "OPENBLAS_CORETYPE": "Haswell", "OMP_NUM_THREADS": "1"},
    {"ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "Haswell", "OMP_NUM_THREADS": "2"},
    {"ATEN_CPU_CAPABILITY": "avx2", "OPENBLAS_CORETYPE": "Prescott", "OMP_NUM_THREADS": "2"},
]


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: "-".join(machine.values()))
@pytest.mark.parametrize("path", sync.notebooks(), ids=lambda path: path.stem)
def test_strict_outputs_hold_elsewhere(path, machine):
    command = [sys.executable, "-m", "pytest", "--nbval", "-p", "no:cacheprovider", "-q", str(path)]
    done = subprocess.run(
        command, env=os.environ | machine, capture_output=True, text=True, check=False, cwd=sync.ROOT
    )
    assert done.returncode == 0, done.stdout[-4000:]
