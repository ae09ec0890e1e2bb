"""axe, on pages of every host: what it finds wrong, in both themes."""

import os
from pathlib import Path

import pytest

AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"


def violations(page):
    """What axe finds on a page, light and dark; the page is opened with `bypass_csp`. Colours alone are looked at again."""
    if not AXE.exists():
        assert not os.environ.get("CI"), "axe-core is missing: run `npm ci` in web/"
        pytest.skip("axe-core is not installed: run `npm ci` in web/")
    page.evaluate(AXE.read_text("utf-8"))
    told = _found(page, "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'best-practice']}")
    page.emulate_media(color_scheme="dark")
    return told + _found(page, "{runOnly: {type: 'rule', values: ['color-contrast']}}")


def _found(page, options):
    return [
        f"{one['id']}: {node['html'][:160]} {node['any'][0]['message'] if node['any'] else ''}"
        for one in page.evaluate(f"axe.run({options})")["violations"]
        for node in one["nodes"][:3]
    ]
