"""What lies under the sound on the audio bench: attention, accounts, risk and features, over time or over tokens.

Tokens, layers, heads and features are 0-based; times are seconds from the start of the explained window.
"""

from __future__ import annotations

from pydantic import AliasChoices, Field

from otoscope.documents.base import Array, Index, Part, Probability, Seconds, Text


class HeadAttention(Part):
    """Cross-attention of every head while each token was chosen.

    `matrix` is (heads, tokens, columns) as shares of `peak` (heads, tokens), the row's largest weight; a column is the mean over
    `column_seconds`. `padding` (heads, tokens) is the weight that lies on what follows the clip.
    """

    heads: list[tuple[Index, Index]]  # (decoder layer, head)
    column_seconds: Seconds
    matrix: Array
    peak: Array
    padding: Array


class HeadShare(Part):
    """A head of cross-attention and its share of what it and the others brought for a token."""

    layer: Index
    head: Index
    share: Probability


class Carried(Part):
    """The shortest stretch of sound that holds at least half of what the sound said for a token.

    `share` is what it holds, of all that the sound said for it; `heads` are those that brought it.
    """

    start: Seconds
    end: Seconds
    share: Probability
    heads: list[HeadShare]


class TokenAccount(Part):
    """Where the logit of one token comes from; all parts and the sound sum to `value`, its logit over the vocabulary's mean.

    `carried` is missing where no stretch of the clip holds half of it, as when the padding does.
    """

    value: float
    sound: float
    text: float
    prompt: float
    positions: float
    biases: float
    errors: float
    carried: Carried | None = None


class Accounts(Part):
    """What supplied the logit of every token, every path of the decoder counted, by its frozen gates and attention.

    `sound` is (tokens, spans): what the encoder's output over each span supplied; `text` (tokens, tokens): what each token before
    did. `spans` follow one another; the last may be the padding, which begins at the clip's end.
    """

    spans: list[tuple[Seconds, Seconds]]
    sound: Array
    text: Array
    tokens: list[TokenAccount]


class Risk(Part):
    """How much each token is to be trusted, by a monitor that watched while it was written.

    `steps` has one risk a token and one for the end of the text. It is an alarm from `threshold` on, chosen so that a share
    `false_alarm_rate` of ordinary speech reaches it; `alarm_token` is the first step that did, numbered
    like the tokens (the end of the text comes after the last). `parts` are what the risk is made of.
    """

    monitor: Text
    steps: list[Probability]
    parts: dict[Text, list[Probability]]
    threshold: Probability
    false_alarm_rate: Probability
    # `alarm` is what earlier documents call it.
    alarm_token: Index | None = Field(None, validation_alias=AliasChoices("alarm_token", "alarm"))

    @property
    def alarm(self) -> bool:
        """Whether any step is an alarm."""
        return self.alarm_token is not None


class FeatureRow(Part):
    """One feature of the encoder over the time of the clip.

    `values` are activations, a column the one of largest size within `column_seconds`. `share` is its part of what the layer's
    features said for `token`; both are missing where a person asked for the feature.
    """

    layer: Index
    feature: Index
    dictionary: Text
    column_seconds: Seconds
    values: Array
    token: Index | None = None
    share: Probability | None = None
