"""`audit`: known vulnerabilities of the packages that the lock file names."""

import json
import subprocess
import sys

import typer

from cli.common import REPOSITORY, console, progress

_PATIENCE_S = 120


def audit() -> None:
    """Look the pinned packages up in the Python advisory database. Exit status 1 where one has a known vulnerability.

    Where the database cannot be reached only the hashes of the lock file stand, which every installation enforces.
    """
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(REPOSITORY / "requirements.lock")]
    command += ["--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
        found = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError):
        found = []
    audited = [package for package in found if "vulns" in package]
    vulnerable = [package for package in audited if package["vulns"]]
    for package in vulnerable:
        ids = ", ".join(f"{v['id']} (fixed in {', '.join(v['fix_versions']) or 'none'})" for v in package["vulns"])
        console.print(f"{package['name']} {package['version']}: {ids}", soft_wrap=True)
    if vulnerable:
        raise typer.Exit(1)
    if audited:
        progress.print(f"{len(audited)} of {len(found)} packages looked up: no known vulnerability.")
    else:
        progress.print("The advisory database cannot be reached. The lock file's hashes were enforced at installation.")


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(rich_help_panel="Development")(audit)
