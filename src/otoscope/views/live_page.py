"""The live page: one HTML text that asks only its own server for anything, and a policy that lets it do nothing else."""

from __future__ import annotations

import json
import secrets

from otoscope.views.page import static

# The worklet that takes the sound is a script of its own, which a page can give its browser as a blob only.
_CSP = (
    "default-src 'none'; script-src 'nonce-{nonce}' blob:; style-src 'nonce-{nonce}'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def render_live(model: str, threshold: float) -> tuple[str, dict[str, str]]:
    """The page, and the headers that belong to this copy of it.

    Args:
        model: Name of the recogniser; it may hold anything.
        threshold: Risk from which it is an alarm.
    """
    nonce = secrets.token_urlsafe(16)
    about = json.dumps({"model": model, "threshold": threshold}).replace("<", "\\u003c")
    parts = {
        "<!-- style -->": f'<style nonce="{nonce}">{static("live.css")}</style>',
        "<!-- about -->": f'<script nonce="{nonce}" type="application/json" id="about">{about}</script>',
        "<!-- worklet -->": f'<script nonce="{nonce}" type="text/plain" id="worklet">{static("live-worklet.js")}</script>',
        "<!-- script -->": f'<script nonce="{nonce}" type="module">{static("live.js")}</script>',
    }
    page = static("live.html")
    for place, part in parts.items():
        before, after = page.split(place, 1)
        page = before + part + after
    return page, {"Content-Security-Policy": _CSP.format(nonce=nonce)}
