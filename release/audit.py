"""Write the bill of materials of this environment, and ask whether a version in it has a known vulnerability: `make audit`.

The advisories are asked for over the network. Where they cannot be had within two minutes this says why and fails, unless it is
only to tell.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

OUT = Path("build") / "sbom.json"
SECONDS = 120


def bill_of_materials(python: str, out: Path) -> int:
    """Write everything that is installed as CycloneDX JSON; returns how many components there are."""
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "cyclonedx_py",
        "environment",
        "--pyproject",
        "pyproject.toml",
        "--output-file",
        str(out),
    ]
    subprocess.run([*command, python], check=True, capture_output=True)
    return len(json.loads(out.read_text("utf-8"))["components"])


def advisories(folder: Path) -> tuple[int, list[str]]:
    """How many packages in a folder could be asked about, and what is known against them, a line each.

    Raises:
        RuntimeError: Nothing could be learnt, and why.
    """
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--path",
        str(folder),
        "--format",
        "json",
        "--progress-spinner",
        "off",
    ]
    try:
        asked = subprocess.run(
            [*command, "--timeout", "5"], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no answer within {SECONDS} s") from None
    if asked.returncode not in (0, 1) or not asked.stdout:
        raise RuntimeError((asked.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    told = json.loads(asked.stdout)["dependencies"]
    asked_about = [one for one in told if "skip_reason" not in one]
    if not asked_about:
        reason = told[0]["skip_reason"] if told else "there is no package"
        raise RuntimeError(f"no package could be asked about: {reason.rstrip('.')}")
    return len(asked_about), [
        f"{one['name']} {one['version']}: {each['id']}, mended in {', '.join(each['fix_versions']) or 'no version'}"
        for one in asked_about
        for each in one.get("vulns", ())
    ]


def main() -> None:
    """Both; the exit code is 1 where an advisory names an installed version, 2 where none could be asked for.

    With `--only-tell` after the Python it is 0 either way.
    """
    python, *how = sys.argv[1:]
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    folder = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    print(f"{OUT}: {bill_of_materials(python, OUT)} components")
    only_tell = "--only-tell" in how
    try:
        count, found = advisories(Path(folder))
    except RuntimeError as error:
        print(f"No audit: {error}.")
        sys.exit(0 if only_tell else 2)
    print("\n".join(found) or f"No advisory names one of the {count} packages that could be asked about.")
    sys.exit(bool(found) and not only_tell)


if __name__ == "__main__":
    main()
