"""Build sdist and wheel, install the wheel into an environment of its own, and try it: `make release-check`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMOKE = Path(__file__).with_name("smoke.py")


def build(out: Path, *, isolated: bool = True) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built out of that sdist.

    Args:
        out: Folder to write them into.
        isolated: Let the build install hatchling for itself; without, the one beside this Python is taken.
    """
    command = [
        sys.executable,
        "-m",
        "build",
        "--outdir",
        str(out),
        *([] if isolated else ["--no-isolation"]),
        str(ROOT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"The build failed:\n{done.stdout}{done.stderr}")
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


def complaints(sdist: Path, wheel: Path) -> list[str]:
    """What the two hold too much, and what they lack."""
    package = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "otoscope").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        "pyproject.toml",
        "Makefile",
        "constraints.txt",
        "mkdocs.yml",
        "CITATION.cff",
        "tests/api.txt",
        "web/package.json",
    }
    return [
        *(f"the wheel lacks {name}" for name in sorted(package - held)),
        *(f"the wheel holds {name}" for name in sorted(held - package)),
        *(f"the sdist lacks {name}" for name in sorted(needed - names)),
        *(
            f"the sdist holds {name}"
            for name in sorted(names)
            if "node_modules" in name or "__pycache__" in name
        ),
    ]


def environment(folder: Path, wheel: Path, *, shared: bool = False, constraints: Path | None = None) -> Path:
    """Make an environment with the wheel in it.

    Args:
        folder: Where.
        wheel: What to install.
        shared: Take everything that otoscope needs from this Python's environment instead of installing it.
        constraints: A file of versions for pip to keep to.

    Returns:
        Its Python.
    """
    venv.create(folder, clear=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    kept = ["--constraint", str(constraints)] if constraints else []
    subprocess.run([*pip, *kept, *(["--no-deps"] if shared else []), str(wheel)], check=True)
    if shared:
        asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        own = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
        others = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
        (own / "shared.pth").write_text(
            "\n".join(others) + "\n"
        )  # what .pth files there add is not added here
    return python


def main() -> None:
    """Everything, in folders that are made anew."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "--constraint", type=Path, help="Versions for pip to keep to, such as a build of torch."
    )
    arguments.add_argument(
        "--shared", action="store_true", help="Share this environment's packages: quick, not clean."
    )
    asked = arguments.parse_args()
    out, folder = ROOT / "dist", ROOT / "build" / "release"
    shutil.rmtree(out, ignore_errors=True)
    sdist, wheel = build(out)
    found = complaints(sdist, wheel)
    if found:
        sys.exit("\n".join(found))
    print(
        f"{sdist.name} ({sdist.stat().st_size / 1e6:.1f} MB), {wheel.name} ({wheel.stat().st_size / 1e6:.1f} MB)"
    )
    python = environment(folder, wheel, shared=asked.shared, constraints=asked.constraint)
    subprocess.run([str(python), "-I", str(SMOKE)], check=True)


if __name__ == "__main__":
    main()
