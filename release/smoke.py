"""Try an installed otoscope as its users will: `python -I smoke.py` with the interpreter that it was installed for.

Needs the weights of whisper-tiny.en, from the cache or from where pip and the hub reach. Prints a line for each thing tried.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distribution, version
from importlib.resources import files
from pathlib import Path

COMMAND = Path(sys.executable).with_name("otoscope")
ASSETS = ("py.typed", "views/static/page.js", "views/static/page.css", "views/static/live.html", "views/static/widget.js",
          "audio/samples/jfk.flac", "audio/samples/SOURCES.md", "monitors/shipped/whisper-tiny.en/monitor.safetensors",
          "studies/recipes/whisper-tiny.en-decoder.yaml")  # fmt: skip


def run(*arguments: str) -> str:
    """What a command prints; a command that fails ends everything with what it said."""
    started = time.perf_counter()
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"otoscope {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    print(f"{time.perf_counter() - started:6.1f} s  otoscope {' '.join(arguments)}")
    return done.stdout


def require(what: str, holds: bool) -> None:
    """End everything where something does not hold."""
    if not holds:
        sys.exit(f"This does not hold: {what}.")


def main() -> None:
    """Import, ask for versions, health and models, and explain the sample."""
    import otoscope as oto

    require("otoscope comes from this environment", Path(sys.prefix) in Path(oto.__file__).parents)
    came = [str(path) for path in distribution("otoscope").files or ()]
    require("no test came along", not any("tests/" in path for path in came))
    require("the licence came along", any(path.endswith("LICENSE") for path in came))
    for asset in ASSETS:
        require(f"the wheel brought {asset}", files("otoscope").joinpath(asset).is_file())
    require("the version is one", run("--version").split()[-1] == oto.__version__ == version("otoscope"))
    checks = {check["name"]: check for check in json.loads(run("doctor", "--json", "-"))["checks"]}
    require("doctor knows otoscope", checks["otoscope"]["detail"] == oto.__version__)
    require("whisper-tiny.en is known", "whisper-tiny.en" in run("models", "list"))
    # Zeroing every component takes most of the time, and nothing that the rest does not take from the wheel.
    run(
        "explain",
        str(oto.sample("jfk")),
        "--without",
        "ablation",
        "--out",
        "jfk.html",
        "--json",
        "jfk.json",
        "--quiet",
    )
    told = json.loads(Path("jfk.json").read_text("utf-8"))
    require("the sample is heard", "ask not what your country can do for you" in told["transcript"]["text"])
    require("the page is whole", Path("jfk.html").read_text("utf-8").rstrip().endswith("</html>"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        import os

        os.chdir(folder)
        main()
