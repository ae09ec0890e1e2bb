"""Documents of sweeps, curves and lenses: what contradicts itself is refused, and all of them can be drawn."""

import pytest
from pydantic import ValidationError
from tests.documents.samples import a_curve, a_lens, a_sweep

from otoscope.documents.curve import CurveDoc
from otoscope.documents.lens import LensDoc
from otoscope.documents.sweep import SweepDoc

MAKERS = {SweepDoc: a_sweep, CurveDoc: a_curve, LensDoc: a_lens}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_document_survives_its_own_json(kind):
    doc = MAKERS[kind]()
    assert kind.model_validate_json(doc.dumps()) == doc
    assert doc.summary().startswith(doc.title)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_document_draws_itself(kind, dark, tmp_path):
    doc = MAKERS[kind]("$x_1$ <script> \u202e")
    figure = doc.plot(tmp_path / "figure.svg", dark=dark)
    svg = (tmp_path / "figure.svg").read_text("utf-8")
    assert "<script" not in svg
    assert "\u202e" not in svg
    assert figure.axes


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("cells", 0, "grid"), 9),
        (("cells", 0, "row"), 9),
        (("cells", 0, "values"), []),
        (("cells", 1, "column"), 0),
        (("cells", 0, "outcomes", 0, "item"), 9),
        (("cells", 0, "values", 0, "value"), float("nan")),
        (("cells", 0, "values", 0, "value"), None),
    ],
)
def test_a_sweep_that_contradicts_itself_is_refused(path, value):
    data = a_sweep().model_dump()
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValidationError):
        SweepDoc.model_validate(data)


def test_layers_of_a_line_come_once_and_in_order():
    data = a_curve().model_dump()
    data["panels"][0]["series"][0]["points"].reverse()
    with pytest.raises(ValidationError):
        CurveDoc.model_validate(data)


def test_tokens_of_a_lens_are_numbered():
    data = a_lens().model_dump()
    data["tokens"][0]["index"] = 1
    with pytest.raises(ValidationError):
        LensDoc.model_validate(data)
