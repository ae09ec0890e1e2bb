"""`otoscope doctor`."""

from __future__ import annotations

import typer

from otoscope.cli.options import Common, with_common
from otoscope.cli.show import say, table, write_json

_SIGNS = {"ok": "ok", "lack": "lacks", "broken": "BROKEN"}


@with_common
def doctor(*, common: Common) -> None:
    """Say what is installed, what works, and what to do about the rest.

    Downloads nothing. The exit code is 2 when something needed is broken.

    Example: otoscope doctor
    """
    from dataclasses import asdict

    from otoscope.doctor import examine

    checks = examine()
    if common.json:
        write_json({"checks": [asdict(check) for check in checks]}, common.json)
    if not common.json_on_stdout:
        say(
            *table(
                [
                    (
                        _SIGNS[c.status],
                        c.name,
                        " ".join(filter(None, (c.detail, c.remedy and f"— {c.remedy}"))),
                    )
                    for c in checks
                ]
            )
        )
    if any(check.status == "broken" for check in checks):
        raise typer.Exit(2)
