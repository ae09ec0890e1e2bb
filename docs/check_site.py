"""Check a built site for what MkDocs does not: `python docs/check_site.py site`.

Every public name of the package is in the site's inventory, and every picture and sound that a page asks for is there.
"""

from __future__ import annotations

import ast
import re
import sys
import zlib
from pathlib import Path
from urllib.parse import unquote

SOURCE = Path(__file__).parents[1] / "src" / "otoscope"
MEDIA = re.compile(r"<(?:img|audio|source)[^>]*? (?:src|srcset)=[\"']?([^\"'\s>]+)")


def main(site: Path) -> None:
    faults = [f"{name} is not in the API reference" for name in sorted(public_names() - inventory(site))]
    faults += [f"{page} asks for {link}" for page, link in missing_media(site)]
    if faults:
        raise SystemExit("\n".join(faults))


def inventory(site: Path) -> set[str]:
    """Names that the reference documents."""
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.split(" ")[0] for line in zlib.decompress(packed).decode().splitlines()}


def public_names() -> set[str]:
    """Full names of every public class, function and constant outside the command line."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        if "cli" in parts or any(part.startswith("_") for part in parts):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = getattr(node, "targets", [getattr(node, "target", node)])
            names = [getattr(target, "name", getattr(target, "id", "_")) for target in targets]
            found |= {".".join((*parts, name)) for name in names if isinstance(name, str) and name[0] != "_"}
    return found


def missing_media(site: Path) -> list[tuple[str, str]]:
    """Pages and the files of their pictures and sounds that are not there."""
    asked = [
        (page, link)
        for page in site.rglob("*.html")
        for link in MEDIA.findall(page.read_text(encoding="utf-8"))
    ]
    local = [(page, link) for page, link in asked if not link.startswith(("data:", "http", "/"))]
    return [
        (page.relative_to(site).as_posix(), link)
        for page, link in local
        if not (page.parent / unquote(link)).exists()
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
