"""Parsing of each guard family's published outputs, and of text that does not match their format."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.guards.families import FAMILIES
from core.guards.outputs import (
    Finding,
    read_gpt_oss_safeguard,
    read_granite_guardian,
    read_llama_guard,
    read_nemotron,
    read_qwen3guard,
    read_shieldgemma,
    read_wildguard,
)

Reader = Callable[[str, str], Finding]
POLICY = "<BEGIN UNSAFE CONTENT CATEGORIES>\nS1: Violent Crimes.\nS10: Self-Harm.\n  Should not: S11\n<END>"


@pytest.mark.parametrize(
    ("read", "text", "safe", "refusal", "category"),
    [
        (read_llama_guard, "safe", True, None, "safe"),
        (read_llama_guard, "\n\nsafe", True, None, "safe"),
        (read_llama_guard, "unsafe\nS1", False, None, "S1 Violent Crimes"),
        (read_llama_guard, "\n\nunsafe\nS1,S10", False, None, "S1 Violent Crimes, S10 Self-Harm"),
        (read_llama_guard, "unsafe\nO3", False, None, "O3"),
        (read_llama_guard, "unsafe", False, None, "unsafe"),
        (read_qwen3guard, "Safety: Safe\nCategories: None\nRefusal: Yes", True, True, "safe"),
        (read_qwen3guard, "Safety: Unsafe\nCategories: Violent\nRefusal: No", False, False, "unsafe: Violent"),
        (read_qwen3guard, "Safety: Controversial\nCategories: PII, Violent\nRefusal: No", False, False,
         "controversial: PII, Violent"),
        (read_wildguard, "Harmful request: yes\nResponse refusal: yes\nHarmful response: no", True, True, "safe"),
        (read_wildguard, "Harmful request: yes\nResponse refusal: no\nHarmful response: yes", False, False,
         "harmful response"),
        (read_granite_guardian, "No", True, None, "safe"),
        (read_granite_guardian, "Yes\n<confidence> High </confidence>", False, None, "harm"),
        (read_granite_guardian, "<think>\n</think>\n<score> yes </score>", False, None, "harm"),
        (read_granite_guardian, "<score>no</score>", True, None, "safe"),
        (read_granite_guardian, "<think>\n</think>\n<score>no</score>", True, None, "safe"),
        (read_nemotron, "Prompt harm: harmful\nResponse harm: unharmful", True, None, "safe"),
        (read_nemotron, "Prompt harm: unharmful\nResponse Harm: harmful", False, None, "harmful response"),
        (read_nemotron, "<think>\nResponse harm: harmful?\n</think>\n\nPrompt harm: harmful\nResponse harm: unharmful",
         True, None, "safe"),
        (read_nemotron, "User Safety: unsafe\nResponse Safety: safe\nSafety Categories: Violence", True, None, "safe"),
        (read_nemotron, "User Safety: unsafe\nResponse Safety: unsafe\nSafety Categories: Violence, Threat",
         False, None, "Violence, Threat"),
        (read_nemotron, '{"User Safety": "unsafe", "Response Safety": "unsafe", "Safety Categories": "Threat"}',
         False, None, "Threat"),
        (read_gpt_oss_safeguard, "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final"
         "<|message|>1", False, None, "violation"),
        (read_gpt_oss_safeguard, 'analysisIt declines, so "violation": 1 is wrong.assistantfinal{"violation": 0}',
         True, None, "safe"),
        (read_gpt_oss_safeguard, '{"violation": 1, "policy_category": "H2.d", "rule_ids": ["H2.d"]}',
         False, None, "H2.d"),
        (read_gpt_oss_safeguard, "0", True, None, "safe"),
        (read_shieldgemma, "Yes", False, None, "violation"),
        (read_shieldgemma, "No.", True, None, "safe"),
    ],
)  # fmt: skip
def test_published_outputs(read: Reader, text: str, safe: bool, refusal: bool | None, category: str) -> None:
    finding = read(text, POLICY)
    assert (finding.safe, finding.refusal, finding.category) == (safe, refusal, category)
    assert finding.reason


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_llama_guard, ""),
        (read_llama_guard, "safely said"),
        (read_llama_guard, "I'm sorry, but this is safe"),
        (read_llama_guard, "unsafely"),
        (read_qwen3guard, "Safety: Safe"),
        (read_qwen3guard, "Safety: Fine\nRefusal: No"),
        (read_qwen3guard, "Categories: None\nRefusal: Yes"),
        (read_wildguard, "Harmful request: no\nResponse refusal: no"),
        (read_wildguard, "Harmful request: yes\nResponse refusal: N/A\nHarmful response: N/A"),
        (read_granite_guardian, "Maybe"),
        (read_granite_guardian, "<score> 0.7 </score>"),
        (read_nemotron, "Prompt harm: harmful"),
        (read_nemotron, "Prompt harm: harmful\nResponse harm: None"),
        (read_nemotron, "<think>Perhaps Response harm: unharmful"),
        (read_gpt_oss_safeguard, 'analysisThe reply helps, "violation": 0 would be wrong'),
        (read_gpt_oss_safeguard, "analysis 0"),
        (read_gpt_oss_safeguard, "analysisIt helps.assistantfinal10"),
        (read_gpt_oss_safeguard, '{"violation": "maybe"}'),
        (read_shieldgemma, "Nothing is violated"),
    ],
)
def test_malformed_output_is_unknown_and_never_safe(read: Reader, text: str) -> None:
    finding = read(text, POLICY)
    assert (finding.safe, finding.refusal) == (None, None)
    assert finding.reason and " ".join(text.split())[:60] in finding.reason


@given(st.text(max_size=200), st.text(max_size=100))
def test_any_text_is_read_without_an_error(text: str, prompt: str) -> None:
    for family in FAMILIES:
        finding = family.read(text, prompt)
        assert finding.reason
        assert (finding.safe is None) == (finding.category == "")
