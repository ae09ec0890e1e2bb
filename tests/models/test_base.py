from __future__ import annotations

import pytest
import torch

from otoscope.errors import OptionError
from otoscope.models.base import pick_device

GONE = ["cpu:x", "cpu:1", "cpu:-1", "cuda:9", "cuda:", "mps:7", "tpu", "meta", "", ":", "cpu:0:0", "cpu\0"]


@pytest.mark.parametrize("device", GONE)
@pytest.mark.parametrize("cards", [0, 2])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(monkeypatch, device, cards):
    monkeypatch.setattr("torch.cuda.device_count", lambda: cards)
    with pytest.raises(OptionError, match="not on this machine") as caught:
        pick_device(device)
    assert "auto, cpu" in caught.value.remedy
    assert ("cuda:1" in caught.value.remedy) == (cards == 2)


def test_a_device_that_is_there_is_taken(monkeypatch):
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("cpu:0").type == "cpu"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda:1")
