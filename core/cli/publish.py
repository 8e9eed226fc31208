"""`publish`: upload a saved merge to the Hub, private by default."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.cli import EXIT_OK
from core.cli.output import print_json, results_only, say
from core.settings import Settings

if TYPE_CHECKING:
    from core.publishing.publish import Published


def add_commands(commands: Any) -> None:
    """Add `publish` to the command line."""
    parser = commands.add_parser(
        "publish",
        help="upload a saved merge to the Hub",
        description="Uploads as the user of HF_TOKEN: the model, its card with the measured safety, the recipe and the "
        "report. A merge that is less aligned than its best parent beyond chance needs --override. Repeat the command "
        "to continue an upload that broke off. Exit 0 published, 1 refused or failed.",
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="folder of a run, or merged, baselines/NAME or candidates/N in it"
    )
    parser.add_argument("--repo", required=True, metavar="NAME", help="NAME or OWNER/NAME on the Hub")
    seen = parser.add_mutually_exclusive_group()
    seen.add_argument("--private", action="store_true", help="only the owner sees it (default)")
    seen.add_argument("--public", action="store_true", help="everybody sees it")
    parser.add_argument(
        "--override", default="", metavar="REASON", help="publish in spite of the safety check; the card has the reason"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.add_argument("--record", default="", help=argparse.SUPPRESS)
    parser.set_defaults(handler=_publish)


def _publish(arguments: argparse.Namespace, settings: Settings) -> int:
    from core.publishing.publish import PublishRequest, publish

    request = PublishRequest(arguments.folder, arguments.repo, not arguments.public, arguments.override)
    with results_only():
        published = publish(request, settings, say, arguments.record)
    if arguments.json:
        print_json(_facts(published))
    else:
        print(f"{'Unchanged' if published.unchanged else 'Published'}: {published.url}")
        print(f"{'Private' if published.private else 'Public'}, license {published.license.license}")
        print(published.check.sentence)
    return EXIT_OK


def _facts(published: Published) -> dict[str, Any]:
    """The keys of `--json`."""
    standing = published.check.standing
    rates = standing.model_dump(mode="json") if standing else {}
    return {
        "run": str(published.source.run.path),
        "model": published.source.place,
        "repo": published.repo,
        "url": published.url,
        "commit": published.commit,
        "private": published.private,
        "unchanged": published.unchanged,
        "license": published.license.license,
        "license_notices": list(published.license.notices),
        "sha256": published.source.sha256,
        "alignment": rates.get("merge"),
        "best_parent": rates.get("best_parent"),
        "p_value": rates.get("to_best", {}).get("p_value"),
        "objection": published.check.objection,
        "override": published.override,
        "files": list(published.files),
    }
