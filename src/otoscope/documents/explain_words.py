"""An explained clip in words: what was written, which word to doubt and why, which sound carried it; and what is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otoscope.documents.bench import Carried
    from otoscope.documents.explain import Component, ExplainDoc, WordInfo

_CLOSE = 0.2
"""Probability from which the next best token is worth a word."""


def in_words(doc: ExplainDoc) -> list[str]:
    """The explanation in short, from the document's numbers alone; a line for each thing that is known."""
    return list(_lines(doc))


def doubtful(doc: ExplainDoc) -> WordInfo | None:
    """The word to look at first: the one in alarm, else the one that was asked for, else the least certain one."""
    words = doc.transcript.words
    alarm = None if doc.risk is None else doc.risk.alarm_token
    for token in (alarm, doc.selected_token):
        found = [w for w in words if token is not None and w.first_token <= token <= w.last_token]
        if found:
            return found[0]
    return min(words, key=lambda word: word.p, default=None)


def _lines(doc: ExplainDoc) -> Iterator[str]:
    mended = f", mended by {doc.model.mended}," if doc.model.mended else ""
    yield f"{doc.model.name}{mended} wrote: {doc.transcript.text.strip() or '(nothing)'}"
    word = doubtful(doc)
    if word is not None:
        yield from _of_word(doc, word)
    yield from _risk(doc)
    if doc.transcript.wer is not None:
        yield f"Word error rate: {_percent(doc.transcript.wer, 1)}."


def _of_word(doc: ExplainDoc, word: WordInfo) -> Iterator[str]:
    token = main_token(doc, word)
    name, least = word.text.strip(), min(doc.transcript.words, key=lambda w: w.p)
    title = "Least certain word" if word is least else "Word to look at"
    yield f"{title}: {name} (p = {word.p:.2f}){_rival(doc, token)}"
    yield from _sound(doc, token, name)
    yield from _settled(doc, token)
    yield from _hangs_on(doc, word)


def main_token(doc: ExplainDoc, word: WordInfo) -> int:
    """The token that stands for a word: the one in alarm or asked for, else its least certain one."""
    inside = range(word.first_token, word.last_token + 1)
    alarm = None if doc.risk is None else doc.risk.alarm_token
    for token in (alarm, doc.selected_token):
        if token is not None and token in inside:
            return token
    return min(inside, key=lambda i: doc.transcript.tokens[i].p)


def _rival(doc: ExplainDoc, token: int) -> str:
    """What else the model thought of."""
    if not doc.logit_lens.tokens:
        return ""
    last = max(doc.logit_lens.tokens[token].layers, key=lambda layer: layer.layer, default=None)
    others = [] if last is None else [c for c in last.top if c.id != doc.transcript.tokens[token].id]
    best = max(others, key=lambda c: c.p, default=None)
    if best is None or best.p < _CLOSE:
        return ""
    return f"; “{best.text.strip() or best.text}” was close (p = {best.p:.2f})"


def _sound(doc: ExplainDoc, token: int, name: str) -> Iterator[str]:
    if doc.accounts is None:
        return
    account = doc.accounts.tokens[token]
    if account.carried is None:
        yield "No single stretch of the clip holds half of what the sound said for it."
    else:
        held = f"holds {_percent(account.carried.share)} of what the sound said for it"
        yield f"{_stretch(doc, account.carried)} {held}{_by(account.carried)}."
    written = doc.transcript.tokens[token].text
    of = "Its logit" if written.strip() == name else f"The logit of its token “{written}”"
    parts = {
        "the sound": account.sound,
        "the words before": account.text,
        "the prompt": account.prompt,
        "what is said in any case (biases and positions)": account.biases + account.positions,
        "errors of the dictionary": account.errors,
    }
    known = {
        source: value for source, value in parts.items() if value or source != "errors of the dictionary"
    }
    told = ", ".join(f"{_number(value, 1)} from {source}" for source, value in known.items())
    yield f"{of}, {_number(account.value, 1)}, has {told}."


def _stretch(doc: ExplainDoc, carried: Carried) -> str:
    there = words_within(doc, carried.start, carried.end)
    said = f", where “{' '.join(word.text.strip() for word in there)}” is heard," if there else ","
    return f"The sound at {carried.start:.2f}–{carried.end:.2f} s{said}"


def words_within(doc: ExplainDoc, start: float, end: float) -> list[WordInfo]:
    """Words of which a third or more lies in a stretch, or that hold a third or more of it."""

    def shared(word: WordInfo) -> float:
        if word.start is None or word.end is None:
            return 0.0
        common = min(word.end, end) - max(word.start, start)
        return common / max(min(word.end - word.start, end - start), 1e-9)

    return [word for word in doc.transcript.words if shared(word) >= 1 / 3]


def _by(carried: Carried) -> str:
    if not carried.heads:
        return ""
    best = carried.heads[0]
    by = f"by head {best.head} of decoder layer {best.layer} ({_percent(best.share)})"
    return f"; most of it came {by}" if best.share >= 0.5 else f"; the largest part by one head came {by}"


def _settled(doc: ExplainDoc, token: int) -> Iterator[str]:
    if not doc.logit_lens.tokens:
        return
    layer, last = doc.logit_lens.tokens[token].saturation_layer, doc.logit_lens.layers - 1
    if layer is not None:
        yield f"It was settled from decoder layer {layer} on ({'the last' if layer == last else f'the last is {last}'})."


def _hangs_on(doc: ExplainDoc, word: WordInfo) -> Iterator[str]:
    """The head without which a word is least probable, by more than without a random subspace of that size."""
    listed = doc.ablation.components
    heads = [i for i, component in enumerate(listed) if component.head is not None]
    if not heads:
        return
    inside = slice(word.first_token, word.last_token + 1)
    change = doc.ablation.change.unpack()[:, inside].sum(axis=1)
    controls = _controls(doc, inside)
    random = {i: controls.get((listed[i].stack, listed[i].layer, listed[i].part)) for i in heads}
    most = min(heads, key=lambda i: change[i] - (random[i] or 0.0))
    label, control = _head_words(listed[most]), random[most]
    if control is None:
        yield f"Of single heads it hangs most on {label}: {_change(change[most])} nats with that head zeroed."
    elif change[most] < control:
        yield (
            f"Of single heads it hangs most on {label}: {_change(change[most])} nats with that head zeroed, "
            f"{_change(control)} with a random subspace of that size."
        )
    else:
        yield "No single head matters more to it than a random subspace of that size."


def _head_words(component: Component) -> str:
    """A head in words, and by its short name on the page."""
    part = {"self_attn": "self-attention", "cross_attn": "cross-attention"}.get(component.part, "attention")
    return f"head {component.head} of the {part} in {component.stack} layer {component.layer} ({component.label})"


def _number(value: float, digits: int = 2) -> str:
    """A number with a true minus, and none before a zero."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "−" if float(text) else "")


def _change(value: float) -> str:
    return ("" if value < 0 else "+") + _number(value)


def _percent(share: float, digits: int = 0) -> str:
    return f"{_number(100 * share, digits)} %"


def _controls(doc: ExplainDoc, inside: slice) -> dict[tuple[str, int, str], float]:
    """Of each block of attention, the mean change without a random subspace of a head's size, in nats."""
    if doc.ablation.control_change is None:
        return {}
    change = doc.ablation.control_change.unpack()[:, inside].sum(axis=1)
    places = [(control.stack, control.layer, control.part) for control in doc.ablation.controls]
    return {
        place: float(np.mean([value for at, value in zip(places, change, strict=True) if at == place]))
        for place in set(places)
    }


def _risk(doc: ExplainDoc) -> Iterator[str]:
    risk = doc.risk
    if risk is None:
        return
    if risk.alarm_token is not None:
        written = doc.transcript.tokens
        where = (
            f"“{written[risk.alarm_token].text.strip()}”"
            if risk.alarm_token < len(written)
            else "the end of the text"
        )
        yield f"Alarm at {where}: risk {risk.steps[risk.alarm_token]:.2f}, an alarm from {risk.threshold:.2f} on."
    else:
        yield f"Highest risk {max(risk.steps):.2f}; it would be an alarm from {risk.threshold:.2f} on."


def left_out(doc: ExplainDoc, skipped: Sequence[str] = ()) -> list[str]:
    """What the document does not tell, in sentences.

    Args:
        doc: The document.
        skipped: What was not computed, and why.
    """
    lines = list(skipped)
    if doc.accounts is not None:
        lines.append(
            "The account of the sound takes the encoder as given: what counts is where its output lies, and it may have moved "
            "what it heard. Attention and gates are frozen, so that it says what was read and not what would happen without it."
        )
    for circuit in doc.circuits:
        kept, name = circuit.graph.left_out, doc.transcript.tokens[circuit.token].text.strip()
        lines.append(
            f"The circuit of “{name}” shows {kept.shown_features} of {kept.active_features} active features of the decoder; "
            f"{_percent(kept.rest)} of the influence comes through others, summed. "
            "The encoder was not opened (`otoscope trace` does)."
        )
    if doc.circuits and len(doc.circuits) < len(doc.transcript.tokens):
        count = len(doc.transcript.tokens)
        lines.append(f"Circuits of {len(doc.circuits)} of {count} tokens were traced (--circuits, --token).")
    if doc.ablation.controls:
        lines.append(
            "Heads are compared with random subspaces of their size, whole blocks and MLPs with nothing; "
            "one clip gives no interval."
        )
    return lines
