"""The institutions of the simulated world: Stripe's test institutions by name, and invented banks.

Names and behaviour of the first group follow Stripe's Financial Connections testing page. The rest are made up;
some of their names carry commas, quotes, signs and accents on purpose, since real ones do.
"""

from __future__ import annotations

from jobs.simulator.draws import token
from jobs.simulator.model import Institution

# name, manner, tokenized, status, share of authorizations in a generated sandbox world
TEST_INSTITUTIONS: tuple[tuple[str, str, bool, str, float], ...] = (
    ("Test Institution", "ordinary", False, "active", 0.06),
    ("Inactive Accounts", "inactive", False, "active", 0.01),
    ("Immediately Requires Reauthentication", "immediate", False, "active", 0.004),
    ("Eventually Requires Reauthentication", "eventual", False, "active", 0.006),
    ("Tokenized Account Numbers", "ordinary", True, "active", 0.02),
    ("Bank (OAuth)", "oauth", False, "active", 0.03),
    ("Down (Scheduled)", "down", False, "inactive", 0.002),
    ("Down (Unscheduled)", "down", False, "inactive", 0.002),
    ("Down (Error)", "down", False, "degraded", 0.002),
    ("Invalid Payment Accounts", "unpayable", False, "active", 0.004),
)
OTHER_NAMES = {  # as Stripe's relink guide calls them
    "Inactive accounts": "Inactive Accounts",
    "Reauthentication Required Immediately": "Immediately Requires Reauthentication",
    "Reauthentication Required Eventually": "Eventually Requires Reauthentication",
    "Tokenized Account Number": "Tokenized Account Numbers",
}
INVENTED_BANKS: tuple[tuple[str, str, bool, str, float], ...] = (
    ("Alderbrook Mutual", "ordinary", False, "active", 0.16),
    ("Bramblefield Bank", "oauth", True, "active", 0.14),
    ("Copperline Credit Union", "ordinary", False, "active", 0.11),
    ("Driftmoor Savings, Inc.", "ordinary", False, "active", 0.09),
    ("Eastmarrow Trust", "oauth", True, "active", 0.08),
    ('Fennel & Daughters "Old" Bank', "ordinary", False, "active", 0.07),
    ("Gullhaven Federal", "ordinary", False, "active", 0.06),
    ("+Plusfield Community Bank", "ordinary", False, "active", 0.05),
    ("Isthmus Valley National", "oauth", False, "active", 0.04),
    ("Junipervale Credit Union", "ordinary", False, "degraded", 0.03),
    ("Lanternbridge Sparkasse Köln-Öst", "ordinary", False, "active", 0.03),
    ("Weidehof Genossenschaft; Filiale 7", "ordinary", False, "active", 0.02),
)


def make_institutions(livemode: bool) -> tuple[dict[str, Institution], dict[str, float]]:
    """Institutions by name, and each one's share of authorizations. Live mode has no test institutions."""
    rows = INVENTED_BANKS if livemode else TEST_INSTITUTIONS + INVENTED_BANKS
    institutions = {
        name: Institution(institution_id(name), name, manner, tokenized, status)
        for name, manner, tokenized, status, _ in rows
    }
    return institutions, {name: share for name, _, _, _, share in rows}


def institution_id(name: str) -> str:
    """The identifier that a bank of this name has in every simulated world."""
    return "fcinst_" + token(f"institution:{name}", 14)
