"""Claims that no benchmark here measures: figures that another command wrote down, and identities that are tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
OVER_DIVISIONS = RESULTS / "studies" / "monitors.json"
"""What `monitor fit --divisions 5` told of each model."""

SHIPPED = ROOT / "src" / "otoscope" / "monitors" / "shipped"
_WITHOUT_A_LOOK_INSIDE = "outside"


@dataclass(frozen=True)
class Study:
    """Where figures come from.

    Attributes:
        command: What measures them.
        page: The study, relative to `docs/`.
        figures: What is claimed.
        result: Gives what the command found.
    """

    command: str
    page: str
    figures: tuple[Figure, ...]
    result: Callable[[], dict[str, Any]]


def killed() -> dict[str, Any]:
    """Reads what the loop of kills found, over all jobs."""
    path = RESULTS / "faults.json"
    if not path.exists():
        return {}
    told = json.loads(path.read_text("utf-8"))
    jobs = told["jobs"].values()
    return {"kills": told["kills"]} | {
        key: sum(len(job[key]) for job in jobs) for key in ("different", "left")
    }


def monitor(name: str) -> Callable[[], dict[str, Any]]:
    """Reads the report of a monitor that comes with otoscope: each target's AUC and F1, and the best baseline's."""

    def read() -> dict[str, Any]:
        report = json.loads((SHIPPED / name / "monitor.json").read_text("utf-8"))["about"]["report"]
        return {
            target: _scores(told["scorers"]) for target, told in report["targets"].items()
        } | {
            "delay": report["delay"], "false_alarms": report["false_alarms"], "hindsight": report["hindsight"],
            "over_divisions": json.loads(OVER_DIVISIONS.read_text("utf-8")).get(name),
        }  # fmt: skip

    return read


def _scores(scorers: list[dict[str, Any]]) -> dict[str, float]:
    own = next(one for one in scorers if one["name"] == "monitor")
    others = [one for one in scorers if one["kind"] == _WITHOUT_A_LOOK_INSIDE]
    best = {f"best_{key}": max(one[key] for one in others) for key in ("auc", "f1")}
    label = next((one["f1"] for one in scorers if one["kind"] == "label"), None)
    return {"auc": own["auc"], "f1": own["f1"], **best, "label_f1": label}


def _monitor(name: str) -> Study:
    targets = {"invented": "invented text", "loop": "loops", "loop, early": "loops, cut 12 tokens in"}
    held = [
        Figure(
            f"{name}, {says}: {word} of the monitor, held to the best baseline",
            f"{target}/{key}",
            at_least=f"{target}/best_{key}",
        )
        for target, says in targets.items()
        for key, word in (("auc", "AUC"), ("f1", "F1"))
    ]
    held += [
        Figure(f"{name}, loops: F1 of the detector that makes the label", "loop/label_f1"),
        Figure(
            f"{name}: tokens from a loop's second copy to the alarm, median of those that ring",
            "delay/median",
            at_most=12,
        ),
        Figure(
            f"{name}: share of loops with an alarm by 12 tokens into their second copy",
            "over_divisions/soon/rate",
        ),
        Figure(f"{name}: share of ordinary speech with an alarm", "false_alarms/rate", at_most=0.05),
        Figure(
            f"{name}: share of ordinary speech that is doubtful in hindsight",
            "hindsight/false_alarms/rate",
            at_most=0.05,
        ),
    ]
    return Study(
        f"otoscope monitor fit --model {name} --out DIR", "studies/monitors.md", tuple(held), monitor(name)
    )


STUDIES = (
    Study(
        "python -m tests.faults.loop --kills 56",
        "faults.md",
        (
            Figure("Long jobs killed at random moments: kills", "kills", at_least=50),
            Figure("results that differ from an undisturbed job's", "different", at_most=0),
            Figure("half-written files left behind", "left", at_most=0),
        ),
        killed,
    ),
    _monitor("whisper-tiny.en"),
    _monitor("whisper-base"),
)


@dataclass(frozen=True)
class Identity:
    """Something that must be exact, and the test that holds it to that.

    Attributes:
        says: What is equal to what, and how nearly.
        tests: Files and functions, as pytest names them.
    """

    says: str
    tests: tuple[str, ...]


IDENTITIES = (
    Identity(
        "Reading every hook point, and edits that change nothing, change no bit (every family)",
        (
            "tests/models/test_invariants.py::test_reading_every_point_changes_no_bit",
            "tests/models/test_invariants.py::test_a_no_op_edit_changes_no_bit_at_any_point_and_zeroing_changes_the_logits",
        ),
    ),
    Identity(
        "Edits of one batch row each give the tokens of Hugging Face `generate` with the same edit as a hook",
        ("tests/patching/test_texts.py::test_changes_in_a_batch_equal_generate_with_a_hook",),
    ),
    Identity(
        "Direct logit attribution sums to the centred logit (float64, 1e-9)",
        ("tests/lenses/test_attribution.py::test_parts_sum_to_the_centred_logit_of_the_model",),
    ),
    Identity(
        "The encoder lens at the last layer gives the ordinary transcript",
        (
            "tests/lenses/test_encoder_lens.py::test_the_encoder_lens_at_the_last_layer_gives_the_ordinary_transcript",
        ),
    ),
    Identity(
        "Every row of an attribution graph sums to its target (float64, 1e-9; every family and dictionary)",
        (
            "tests/circuits/test_adjoint.py::test_every_row_sums_to_its_target_for_every_kind_of_dictionary",
            "tests/circuits/test_graph.py::test_rows_of_a_graph_sum_to_activations_and_logits_however_few_nodes_it_has",
        ),
    ),
    Identity(
        "so do those of speech, from frames and the stem to words (Whisper and Qwen2-Audio; segments of any size)",
        (
            "tests/circuits/test_speech.py::test_every_row_sums_to_its_target",
            "tests/circuits/test_audio_language.py::test_every_row_sums_to_its_target",
            "tests/circuits/test_stem.py::test_patches_floor_and_biases_sum_to_what_the_frames_supplied",
        ),
    ),
    Identity(
        "A segment is the sum of its frames; opening it changes nothing else",
        (
            "tests/circuits/test_hearing.py::test_a_segment_is_the_sum_of_its_frames",
            "tests/circuits/test_speech.py::test_a_segment_that_is_opened_into_frames_is_their_sum_and_everything_else_stays",
        ),
    ),
    Identity(
        "Each block satisfies the adjoint identity; autograd through the frozen model gives the same rows",
        (
            "tests/circuits/test_adjoint.py::test_attention_and_norms_satisfy_the_adjoint_identity",
            "tests/circuits/test_adjoint.py::test_autograd_through_the_frozen_model_gives_the_same_rows",
        ),
    ),
    Identity(
        "Batches and their order change no row; some rows equal the full run's; heads sum to their edge",
        (
            "tests/circuits/test_adjoint.py::test_batches_their_order_and_their_size_change_no_row",
            "tests/circuits/test_graph.py::test_rows_of_some_features_are_those_of_all",
            "tests/circuits/test_heads_and_qk.py::test_the_parts_of_the_heads_and_of_the_residual_path_sum_to_the_edge",
        ),
    ),
    Identity(
        "Under full freeze a changed feature moves every node and logit by its edge (float64, 1e-9)",
        (
            "tests/circuits/test_interventions.py::test_under_full_freeze_a_feature_moves_every_node_and_logit_by_its_edge",
        ),
    ),
    Identity(
        "Pruning equals brute force on small graphs",
        ("tests/circuits/test_graph.py::test_pruning_equals_brute_force",),
    ),
    Identity(
        "A job that was killed and goes on ends with the same numbers: probes, sweeps, trainings",
        (
            "tests/probes/test_harvesting.py::test_a_job_that_was_killed_by_the_system_goes_on_and_gives_the_same_numbers",
            "tests/patching/test_sweeping.py::test_a_sweep_that_the_system_killed_goes_on_and_gives_the_same",
            "tests/dictionaries/training/test_trainer.py::test_a_training_that_was_killed_goes_on_as_if_nothing_had_been",
        ),
    ),
)


def study_rows() -> list[str]:
    """Rows of the table of studies: claim, limit, reached, whether it holds, and where it comes from."""
    return [
        f"| {' | '.join(figure.row(study.result()))} | `{study.command}`, [study]({study.page}) |"
        for study in STUDIES
        for figure in study.figures
    ]


def identity_rows() -> list[str]:
    """Rows of the table of identities."""
    return [f"| {one.says} | {', '.join(f'`pytest {test}`' for test in one.tests)} |" for one in IDENTITIES]
