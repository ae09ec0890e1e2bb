"""Words that sound almost alike, in sentences that suggest the right one, the wrong one, or neither."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from otoscope.audio import espeak
from otoscope.corpora.recipes.recipe import Recipe, Sound, require_known
from otoscope.corpora.recipes.sentences import CARRIER
from otoscope.corpora.recipes.voices import say
from otoscope.errors import OptionError

PAIRS = (
    (
        "wheel",
        "The mechanic changed the front {} of the car.",
        "veal",
        "The butcher sold us a pound of {} for dinner.",
    ),
    ("coat", "She hung her wet {} behind the door.", "goat", "The farmer milked the {} in the barn."),
    ("pear", "He peeled a ripe {} and ate it.", "bear", "The hunter was chased by a grizzly {}."),
    ("peach", "She bit into a sweet and juicy {}.", "beach", "They lay in the sun on a sandy {}."),
    ("cap", "He wore a baseball {} on his head.", "cab", "They took a {} to the airport."),
    (
        "back",
        "He lay flat on his {} and looked at the sky.",
        "bag",
        "She packed her things into a leather {}.",
    ),
    ("rice", "They ate boiled {} with chicken.", "lice", "The nurse checked the child's hair for {}."),
    ("light", "Please switch off the {} when you leave.", "right", "Look to the left and then to the {}."),
    (
        "sheep",
        "The shepherd counted every {} in the flock.",
        "ship",
        "The captain sailed his {} across the ocean.",
    ),
    ("bed", "She lay down on her {} and fell asleep.", "bet", "The gambler lost his {} on the last horse."),
    ("seat", "He fastened the belt of the front {}.", "seed", "The gardener put a {} into the soil."),
    ("cart", "The donkey pulled a heavy {} of hay.", "card", "He paid the bill with his credit {}."),
    ("lock", "The burglar picked the {} on the door.", "log", "He threw another {} on the fire."),
    ("pig", "The farmer fed the fat {} in the sty.", "pick", "The miner broke the rock with a {}."),
    ("mouse", "The cat caught a {} in the cellar.", "mouth", "The dentist told him to open his {}."),
    ("sink", "Put the dirty dishes in the kitchen {}.", "zinc", "Brass is made of copper and {}."),
    ("path", "They followed a narrow {} through the woods.", "bath", "She filled the tub for a hot {}."),
    (
        "park",
        "The children played on the swings in the {}.",
        "bark",
        "We were woken by the loud {} of a dog.",
    ),
    ("tie", "He wore a dark suit and a silk {}.", "die", "To begin the board game, roll the {}."),
    ("fan", "It was so hot that she turned on the {}.", "van", "The driver parked the delivery {}."),
    ("fine", "The judge ordered him to pay a {}.", "vine", "The grapes were still hanging on the {}."),
    ("glass", "He poured some water into a {}.", "class", "The teacher told the pupils to stay after {}."),
    ("crow", "The scarecrow was meant to frighten the {}.", "crown", "The queen wore a golden {}."),
    ("boat", "They rowed the {} across the lake.", "boot", "He pulled the muddy {} off his foot."),
    ("ball", "The striker kicked the {} into the goal.", "bull", "The matador faced an angry {}."),
    ("lake", "They swam across the deep {}.", "rake", "He gathered the fallen leaves with a {}."),
    ("lamp", "She read a book by the light of the {}.", "ramp", "The wheelchair rolled up the {}."),
    ("mail", "The postman delivered the {}.", "nail", "The carpenter hit the {} with a hammer."),
    ("map", "The pirates marked the treasure on a {}.", "nap", "The tired baby took a short {}."),
    ("moon", "The astronauts landed on the {}.", "noon", "They eat lunch every day at {}."),
    ("dime", "Ten cents are the same as a {}.", "time", "He looked at the clock to see the {}."),
    ("thumb", "The baby sucked her {}.", "sum", "Twelve is the {} of five and seven."),
    ("tent", "The campers slept in a {}.", "dent", "The crash left a {} in the car door."),
    ("bowl", "She poured her cereal into a {}.", "pole", "The flag hung from a tall {}."),
    ("tail", "The happy dog wagged its {}.", "sail", "The yacht lost its {} in the storm."),
    ("whale", "The harpoon struck the {} out at sea.", "veil", "The bride lifted her white {}."),
    ("west", "In the evening the sun sets in the {}.", "vest", "The policeman wore a bulletproof {}."),
    ("wine", "The waiter opened a bottle of red {}.", "line", "The customers stood and waited in a long {}."),
    ("rope", "The climber tied a {} around his waist.", "robe", "The judge put on his black {}."),
    ("tooth", "The dentist pulled out the rotten {}.", "truth", "The witness swore to tell the {}."),
    ("bread", "The baker sold us a loaf of {}.", "breath", "Before he dived he took a deep {}."),
    (
        "grass",
        "The cows were eating green {} in the meadow.",
        "brass",
        "Trumpets and door handles are made of {}.",
    ),
    ("cloud", "A dark {} covered the sun.", "crowd", "The singer waved to the cheering {}."),
    ("flute", "She played a tune on her silver {}.", "fruit", "Apples are my favourite {}."),
    ("fox", "The hounds chased the {} out of its den.", "box", "The shoes came in a cardboard {}."),
    (
        "jam",
        "She spread some strawberry {} on her toast.",
        "ham",
        "He ordered eggs and a slice of smoked {}.",
    ),
    ("king", "The prince became {} when his father died.", "ring", "He gave his bride a diamond {}."),
    ("knife", "He cut the meat with a sharp {}.", "wife", "The groom kissed his new {}."),
    ("soap", "Wash your hands with {} and water.", "soup", "She ate a plate of hot chicken {}."),
    ("road", "The lorry drove along the dusty {}.", "rose", "He gave her a red {} from the garden."),
)
"""A word, a sentence that suggests it, a word at most two phonemes away, and a sentence that suggests that."""


@dataclass(frozen=True, kw_only=True)
class Ambiguous(Recipe):
    """Each word of each pair in three sentences: one that suggests the other word, one that suggests it, and a neutral one.

    With the same voice and word the sound hardly differs; what a model writes under a misleading context tells how far it
    follows its ear and how far its expectation. The words of a pair are one or two phonemes apart in espeak-ng's own English.

    Labels: spoken, competing (the word that was not said), bias ("misleading", "supporting" or "neutral"), pair, competing_text
    (the sentence with the other word), speaker, gender, accent.

    Attributes:
        pairs: How many pairs of words, from the first; None takes all fifty.
        voices: Variants of espeak-ng; each says everything.
        accent: Accent of espeak-ng.
    """

    name: ClassVar[str] = "ambiguous"
    pace: ClassVar[float] = 0.01

    pairs: int | None = None
    voices: tuple[str, ...] = ("f2", "m3")
    accent: str = "en-us"

    def sounds(self) -> list[Sound]:
        """Two words of a pair, three sentences each, in every voice."""
        require_known("voice", self.voices, list(espeak.variants()))
        require_known("accent", [self.accent], list(espeak.accents()))
        if self.pairs is not None and not 1 <= self.pairs <= len(PAIRS):
            raise OptionError(f"There are no {self.pairs} pairs.", f"Give 1 to {len(PAIRS)}.")
        return [
            self._sound(voice, spoken, competing, bias, context)
            for voice in self.voices
            for spoken, competing, bias, context in _contexts(self.pairs)
        ]

    def _sound(self, voice: str, spoken: str, competing: str, bias: str, context: str) -> Sound:
        text = context.format(spoken)
        return Sound(
            name=f"{voice.replace(' ', '_')}-{spoken}-not-{competing}-{bias}",
            make=partial(say, text, self.accent, voice),
            seconds=0.4 * (1 + len(text.split())),
            text=text,
            language="en",
            labels={
                "spoken": spoken,
                "competing": competing,
                "bias": bias,
                "pair": "-".join(sorted((spoken, competing))),
                "competing_text": context.format(competing),
                "speaker": voice,
                "gender": espeak.variants()[voice],
                "accent": self.accent,
            },
        )


def _contexts(pairs: int | None) -> Iterator[tuple[str, str, str, str]]:
    """Spoken word, competing word, bias and sentence with a gap."""
    for one, for_one, other, for_other in PAIRS[:pairs]:
        for spoken, competing, own, misleading in (
            (one, other, for_one, for_other),
            (other, one, for_other, for_one),
        ):
            yield spoken, competing, "misleading", misleading
            yield spoken, competing, "supporting", own
            yield spoken, competing, "neutral", CARRIER.format(word="{}")
