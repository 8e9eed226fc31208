"""The license of a merge, which follows from the licenses of its parents.

A merge is a derivative of every parent, so the terms of all of them apply at once. The rules here choose the identifier
for the card and list what a person has to check; they are no legal advice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from core.contracts.safe_yaml import front_matter, load_yaml
from core.errors import ModelError, YamlError
from core.models.files import open_files
from core.models.metadata import DEMO_LICENSE
from core.models.references import ModelReference, parse_reference
from core.settings import Settings

_PERMISSIVE = (
    "cc0-1.0", "unlicense", "wtfpl", "pddl", "isc", "mit", "zlib", "ncsa", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "ms-pl", "afl-3.0", "ecl-2.0", "artistic-2.0", "odc-by", "cdla-permissive-1.0",
    "cdla-permissive-2.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "apache-2.0",
)  # fmt: skip
"""Licenses that allow other terms for derivatives, from the fewest to the most conditions."""
_SHARE_ALIKE = ("cc-by-sa", "cc-by-nc-sa", "gpl", "agpl", "odbl", "osl")
"""Start of the identifiers of licenses that demand the same terms for derivatives."""
_NON_COMMERCIAL = "-nc-"
_NO_DERIVATIVES = "-nd-"
_NO_TERMS_OF_ITS_OWN = ("other", "unknown")
_LLAMA = "llama"
_OTHER = "other"


class MergeLicense(NamedTuple):
    """The license of a merge.

    Attributes:
        license: identifier for the card, `other` where no single identifier covers the merge.
        name: for the card, where `license` is `other`; else empty.
        notices: what a person must know or check, one sentence or two each.
        obstacle: why the merge must not be public; empty where nothing stands against it.
    """

    license: str
    name: str
    notices: tuple[str, ...]
    obstacle: str = ""


def read_parent_licenses(parents: Iterable[str], settings: Settings) -> dict[str, str | None]:
    """The license of each parent by its reference, None where it states none or cannot be read.

    `base+adapter` gives two entries.

    Args:
        parents: references of the models.
        settings: of this machine; its token opens gated and private parents.
    """
    found: dict[str, str | None] = {}
    for text in parents:
        for part in _parts(text, settings):
            found.setdefault(str(part), _license_of(part, settings))
    return found


def reconcile(licenses: Mapping[str, str | None]) -> MergeLicense:
    """The license of a merge of parents with these licenses.

    Args:
        licenses: parent -> identifier, None where it states none.
    """
    stated = {parent: license.casefold() for parent, license in licenses.items() if license}
    unstated = [parent for parent in licenses if not licenses[parent]]
    strict = {parent: license for parent, license in stated.items() if license not in _PERMISSIVE}
    notices = [*_unstated_notice(unstated), *_own_terms(strict)]
    chosen = _single(stated, strict) if not unstated else None
    if chosen is None and strict:
        listed = "; ".join(f"{parent}: {license}" for parent, license in stated.items())
        notices.append(f"The terms of every parent apply at once ({listed}). Check that they can be met together.")
    return MergeLicense(chosen or _OTHER, "" if chosen else "terms-of-all-parents", tuple(notices), _obstacle(strict))


def _single(stated: Mapping[str, str], strict: Mapping[str, str]) -> str | None:
    """The one identifier that covers the merge; None where two parents have different terms of their own."""
    if not strict:
        return max(stated.values(), key=_PERMISSIVE.index, default=None)
    distinct = set(strict.values())
    own_terms = [license for license in strict.values() if license in _NO_TERMS_OF_ITS_OWN]
    return distinct.pop() if len(distinct) == 1 and not own_terms else None


def _obstacle(strict: Mapping[str, str]) -> str:
    for parent, license in strict.items():
        if _NO_DERIVATIVES in f"{license}-":
            return f"{parent} has the license {license}, which forbids sharing derivatives."
    distinct = sorted(set(strict.values()))
    share_alike = [license for license in distinct if license.startswith(_SHARE_ALIKE)]
    others = [license for license in distinct if license not in share_alike[:1] and not _compatible(license)]
    if share_alike and others:
        return f"{share_alike[0]} demands its own terms for derivatives, which {others[0]} does not allow."
    return ""


def _compatible(license: str) -> bool:
    """Whether a license can join one that demands the same terms: the GPL family among itself."""
    return license.startswith(("gpl", "agpl", "lgpl", "mpl"))


def _unstated_notice(parents: list[str]) -> Iterator[str]:
    if parents:
        names = ", ".join(parents)
        yield f"No license is known of {names}. Ask the authors before you share the merge."


def _own_terms(strict: Mapping[str, str]) -> Iterator[str]:
    """What licenses with well-known conditions demand of a derivative."""
    llama = sorted({license for license in strict.values() if license.startswith(_LLAMA)})
    if llama and any(license != "llama2" for license in llama):
        yield f"The license {llama[-1]} demands a model name that begins with Llama and the notice 'Built with Llama'."
    if nc := sorted({license for license in strict.values() if _NON_COMMERCIAL in f"{license}-"}):
        yield f"The license {nc[0]} allows no commercial use."
    if own := [parent for parent, license in strict.items() if license in _NO_TERMS_OF_ITS_OWN]:
        yield f"Read the terms of {', '.join(own)}, which have no standard identifier."


def _parts(text: str, settings: Settings) -> list[ModelReference]:
    try:
        reference = parse_reference(text, settings)
    except ModelError:  # a folder that was deleted: nothing is known of it
        return [ModelReference("folder", text)]
    return [reference.base, *([reference.adapter] if reference.adapter else [])]


def _license_of(reference: ModelReference, settings: Settings) -> str | None:
    if reference.kind == "demo":
        return DEMO_LICENSE
    if reference.kind == "folder" and not reference.folder.is_dir():
        return None
    try:
        files = open_files(reference, settings)
        return files.license or (_in_card(files.text("README.md")) if "README.md" in files.sizes else None)
    except ModelError:
        return None


def _in_card(text: str) -> str | None:
    """The license in a card's front matter; None where it has none or cannot be read."""
    try:
        data = load_yaml(front_matter(text))
    except YamlError:
        return None
    found = data.get("license") if isinstance(data, dict) else None
    return str(found) if found else None
