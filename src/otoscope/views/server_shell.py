"""The one HTML text that a server gives for all its pages, and the policy that comes with it."""

from __future__ import annotations

FILES = {
    "page.js": "text/javascript",
    "page.css": "text/css",
    "live-worklet.js": "text/javascript",  # takes the sound of a microphone, here as on the live page
}
"""What it asks for, and is given without the token: none of it is secret."""

# Only the frames of a comparison may lie in another page, and only in one of this server.
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src data: blob:; "
    "media-src data: blob:; worker-src blob:; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors {ancestors}"
)

_PAGE = """<!doctype html>
<html lang="en" data-host="server">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/page.css">
<title>otoscope</title>
</head>
<body>
<div id="page"><p class="loading">Opening…</p></div>
<noscript><p>This page needs JavaScript.</p></noscript>
<script type="module" src="/static/page.js"></script>
</body>
</html>
"""


def render_shell(framed: bool = False) -> tuple[str, dict[str, str]]:
    """The page, and the headers that belong to it.

    Args:
        framed: Whether it is one half of a comparison, which is a frame of this server's own.
    """
    policy = _CSP.format(ancestors="'self'" if framed else "'none'")
    allowed = "microphone=(self), camera=(), geolocation=(), payment=(), usb=()"
    return _PAGE, {"Content-Security-Policy": policy, "Permissions-Policy": allowed}
