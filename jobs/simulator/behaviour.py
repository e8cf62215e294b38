"""How the simulated world behaves: rates, shares and the ways in which customers answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ANSWERS = (
    "whole",
    "partial",
    "new_authorization",
    "no_account",
    "no_authorization",
    "other",
    "failed",
    "cancelled",
    "succeeded_without_result",
    "never",
)


def _default_answers() -> Mapping[str, float]:
    return {
        "whole": 0.46,
        "partial": 0.09,
        "new_authorization": 0.11,
        "no_account": 0.05,
        "no_authorization": 0.08,
        "other": 0.02,
        "failed": 0.02,
        "cancelled": 0.06,
        "succeeded_without_result": 0.01,
        "never": 0.10,
    }


def _default_causes() -> Mapping[str, float]:
    return {
        "access_expired": 0.34,
        "access_denied": 0.15,
        "institution_requirement": 0.16,
        "unspecified": 0.10,
        "account_unavailable": 0.13,
        "account_closed": 0.12,
    }


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Rates are per authorization and day, shares are fractions of 1, delays are in hours unless named otherwise."""

    daily_break_rate: float = 0.008
    daily_expiring_rate: float = 0.0015
    daily_disconnect_rate: float = 0.0004
    daily_new_link_rate: float = 0.0015
    break_causes: Mapping[str, float] = field(default_factory=_default_causes)
    heal_share: float = 0.08
    heal_after_days: tuple[float, float] = (0.5, 6.0)

    initial_inactive_share: float = 0.03
    initial_permanent_share: float = 0.008
    initial_expiring_share: float = 0.015
    initial_disconnected_share: float = 0.01
    initial_expired_number_share: float = 0.03

    number_lifetime_days: int = 180
    number_pending_share: float = 0.2

    automatic_answers: bool = True
    answers: Mapping[str, float] = field(default_factory=_default_answers)
    prompt_answer_hours: tuple[float, float] = (0.1, 20.0)
    slow_answer_hours: tuple[float, float] = (24.0, 140.0)
    late_answer_hours: tuple[float, float] = (170.0, 480.0)
    slow_share: float = 0.17
    late_share: float = 0.06
    lag_share: float = 0.10
    lag_hours: tuple[float, float] = (1.0, 20.0)
    keep_account_ids_share: float = 0.35
    ambiguous_share: float = 0.10
    old_disconnected_share: float = 0.6
    sibling_reactivated_share: float = 0.5
    fresh_link_share: float = 0.0
    """Of the customers who would never answer, those who link their broken accounts afresh instead."""
    session_creation_emits_event: bool = False
    """Whether creating a session emits `financial_connections.session.updated`; Stripe does not document it."""
    hosted_interval_hours: float = 48.0
    """Between two hosted requests of a customer or an authorization (Stripe docs: hosted relink, eligibility)."""
    hosted_return_url: str = "optional"
    """`optional`, `required`, or `nested`: needed as `hosted[return_url]`; Stripe's documents do not agree on it."""

    def __post_init__(self) -> None:
        unknown = set(self.answers) - set(ANSWERS)
        if unknown:
            raise ValueError(f"unknown answers {sorted(unknown)}; known are {', '.join(ANSWERS)}")
        if self.hosted_return_url not in ("optional", "required", "nested"):
            raise ValueError("hosted_return_url is optional, required or nested")

    @classmethod
    def quiet(cls) -> Behaviour:
        """Nothing happens by itself and nobody answers: for small worlds that a test directs step by step."""
        return cls(
            daily_break_rate=0.0,
            daily_expiring_rate=0.0,
            daily_disconnect_rate=0.0,
            daily_new_link_rate=0.0,
            heal_share=0.0,
            initial_inactive_share=0.0,
            initial_permanent_share=0.0,
            initial_expiring_share=0.0,
            initial_disconnected_share=0.0,
            initial_expired_number_share=0.0,
            number_pending_share=0.0,
            automatic_answers=False,
            lag_share=0.0,
            ambiguous_share=0.0,
        )
