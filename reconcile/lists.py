"""The merchant's lists beside the ledger: whom never to contact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from reconcile.errors import LedgerError
from reconcile.ledger import FAULTS_SHOWN, BadCell, identifier, shown, shown_key

SUPPRESSION_COLUMNS = ("id", "merchant")


def suppressed_by_merchant(
    rows: Iterable[Mapping[str, object]], merchants: Sequence[str], where: str
) -> dict[str, frozenset[str]]:
    """The ids of holders and accounts that are never contacted, by merchant; a row without a merchant holds for all of them.

    Args:
        where: the setting or file that the rows come from, for messages.

    Raises:
        LedgerError: naming the rows at fault, since whoever a broken row means would be contacted.
    """
    suppressed: dict[str, set[str]] = {merchant: set() for merchant in merchants}
    faults: list[str] = []
    for number, row in enumerate(rows, start=1):
        key = shown_key(row.get("id"))
        try:
            suppressed_id, merchant = identifier(row.get("id")), row.get("merchant")
            if merchant not in (None, "", *merchants):
                raise BadCell(
                    f"names merchant {shown(str(merchant))}, which the settings do not; known: {', '.join(merchants)}"
                )
        except BadCell as fault:
            faults.append(f"  row {number}, id {key}: {fault}")
            continue
        for name in merchants if merchant in (None, "") else (str(merchant),):
            suppressed[name].add(suppressed_id)
    if faults:
        more = [f"  and {len(faults) - FAULTS_SHOWN} more"] if len(faults) > FAULTS_SHOWN else []
        head = f"{where} has faulty rows (counted from 1 after the header); mend them, since nobody can tell whom they mean:"
        raise LedgerError("\n".join([head, *faults[:FAULTS_SHOWN], *more]))
    return {merchant: frozenset(ids) for merchant, ids in suppressed.items()}
