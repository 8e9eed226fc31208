"""List the runs of a study: one cell per run, no run twice, the most important cells first.

One cell makes the data of a pool, a seed and a K, and the other cells read its files; one cell measures the parents of
a pool. The ablation value that equals the study's own value is a cell of Table 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from benchmarks.paper.study import Study
from core.contracts.merge_methods import FastMethod
from core.contracts.run_spec import RunSpec, load_spec, spec_from_dict
from core.data.training_pairs import Dataset
from core.errors import SpecError
from core.evaluation.suites import probe_question_files
from core.runs.folder import RunFolder

Pool = Literal["two", "three"]
Table = Literal["table1", "table2", "fig3", "table3", "table4"]
RowMethod = FastMethod | Literal["cocktail"]
"""How a row merges: a merge method, or LM-Cocktail's linear merge."""
TABLES: tuple[Table, ...] = get_args(Table)
ABLATIONS: tuple[Table, ...] = ("fig3", "table3", "table4")


@dataclass(frozen=True)
class Setting:
    """The varied values of a row; equal settings share a cell."""

    pool: Pool
    method: RowMethod
    alpha: float
    k: int
    steps: int
    real: bool = False


class Cell(NamedTuple):
    """One run of the study.

    Attributes:
        folder: its run folder, below the study's folder.
        spec: its run; with `data_from`, `with_data` must add the data files.
        data_from: folder of the cell whose training pairs it reads; None = it makes its own data.
    """

    folder: str
    spec: RunSpec
    data_from: str | None


def spec_of(study: Study, pool: Pool) -> RunSpec:
    """Return the study's run of a pool.

    Raises:
        SpecError: the study has no such pool.
    """
    spec = study.two if pool == "two" else study.three
    if spec is None:
        raise SpecError(
            f"The study has no pool '{pool}'.", f"Add the key `{pool}`, or leave out its tables.", code="no-such-pool"
        )
    return spec


def own_setting(study: Study, pool: Pool, method: RowMethod | None = None) -> Setting:
    """Return the study's own values with a method, by default the study's first."""
    spec = spec_of(study, pool)
    first = (study.methods if pool == "two" else study.three_methods)[0]
    return Setting(pool, method or first, spec.search.alpha, spec.data.safety.k, spec.search.steps)


def settings_of(study: Study, table: Table) -> list[Setting]:
    """Return the settings of a table's rows, in order; none if the study lacks the table's pool."""
    if table == "table2":
        return [own_setting(study, "three", method) for method in study.three_methods] if study.three else []
    if study.two is None:
        return []
    own = own_setting(study, "two")
    if table == "table1":
        methods: tuple[RowMethod, ...] = (*study.methods, "cocktail")
        return [own_setting(study, "two", method) for method in methods]
    if table == "fig3":
        return [replace(own, alpha=alpha) for alpha in study.alphas]
    if table == "table4":
        return [replace(own, steps=steps) for steps in study.steps]
    real = [replace(own, real=True)] if study.real else []
    return [*(replace(own, k=k) for k in study.ks), *real]


def plan(study: Study, seeds: Sequence[int], tables: Sequence[Table] = TABLES) -> list[Cell]:
    """Return the cells of some tables in the order of work: one seed with its ablations, then the next seed.

    Raises:
        SpecError: a run of the study is not possible.
    """
    cells: dict[str, Cell] = {}
    for seed in seeds:
        for table in (table for table in TABLES if table in tables):
            if table in ABLATIONS and seed >= study.ablation_seeds:
                continue
            for setting in settings_of(study, table):
                first = [] if makes_data(study, setting) else [own_setting(study, setting.pool)]
                for needed in (*first, setting):
                    cells.setdefault(folder_of(study, needed, seed), cell_of(study, needed, seed))
    return list(cells.values())


def folder_of(study: Study, setting: Setting, seed: int) -> str:
    """Return the folder of a setting's cell, below the study's folder."""
    own = own_setting(study, setting.pool)
    if setting.real:
        row = "table3/real"
    elif setting.k != own.k:
        row = f"table3/k-{setting.k}"
    elif setting.alpha != own.alpha:
        row = f"fig3/alpha-{setting.alpha:g}"
    elif setting.steps != own.steps:
        row = f"table4/steps-{setting.steps}"
    else:
        row = f"{'table1' if setting.pool == 'two' else 'table2'}/{setting.method}"
    return f"{row}/seed-{seed}"


def makes_data(study: Study, setting: Setting) -> bool:
    """Return whether a setting makes its own data: the first of its pool, another K, and real data."""
    own = own_setting(study, setting.pool)
    return setting == own or setting.k != own.k or setting.real


def cell_of(study: Study, setting: Setting, seed: int) -> Cell:
    """Return the cell of a setting.

    Raises:
        SpecError: the run is not possible.
    """
    spec, own = spec_of(study, setting.pool), own_setting(study, setting.pool)
    values = spec.model_dump(mode="json")
    values["search"] |= _search(study, setting, seed)
    values["evaluation"]["parents"] = setting == own and seed == 0
    values["export"]["folder"] = False
    if setting.real and study.real is not None:
        values["data"] = study.real.model_dump(mode="json")
    for part in ("safety", "domain"):
        values["data"][part]["k"] = setting.k
    data_from = None if makes_data(study, setting) else folder_of(study, own, seed)
    return Cell(folder_of(study, setting, seed), spec_from_dict(values), data_from)


def _search(study: Study, setting: Setting, seed: int) -> dict[str, Any]:
    values = {"alpha": setting.alpha, "steps": setting.steps, "seed": seed}
    if setting.method == "cocktail":
        return values | {"optimizer": "cocktail", "method": "linear", "compare": ["cocktail_expert_only"]}
    return values | {"method": setting.method, "compare": _compared(study, setting)}


def _compared(study: Study, setting: Setting) -> list[str]:
    """Return the searches compared with the safety-aware one; grid search needs probe questions."""
    if setting.real:
        return ["evomm_expert_only"]
    if setting != own_setting(study, setting.pool, setting.method):
        return []
    grid = ["grid"] if probe_question_files(spec_of(study, setting.pool)) else []
    return [*grid, "evomm_expert_only"]


def with_data(cell: Cell, out: Path) -> RunSpec:
    """Return a cell's spec with the files of the refusals and domain pairs that it reads.

    Raises:
        SpecError: as for any spec.
    """
    if cell.data_from is None:
        return cell.spec
    values = cell.spec.model_dump(mode="json")
    source = RunFolder((out / cell.data_from).resolve())
    parts: tuple[Dataset, ...] = ("safety", "domain")
    for part in parts:
        values["data"][part] = {"source": "file", "path": str(source.data_path(part)), "k": values["data"][part]["k"]}
    return spec_from_dict(values)


def check_folders(cells: Sequence[Cell], out: Path) -> None:
    """Check that the runs in the study's folder belong to this study, before anything runs.

    Raises:
        SpecError: a cell's folder holds another run.
    """
    for cell in cells:
        folder = RunFolder(out / cell.folder)
        if folder.spec_path.exists() and _without_paths(load_spec(folder.spec_path)) != _without_paths(
            with_data(cell, out)
        ):
            raise SpecError(
                f"The spec of the run in {folder.path} differs from this study's.",
                "Give another folder with --out, or move that one away.",
                code="another-spec",
            )


def _without_paths(spec: RunSpec) -> RunSpec:
    """Return a spec without the paths of its data files, as the study's folder may have moved."""
    data = spec.data
    parts = {part: getattr(data, part).model_copy(update={"path": None}) for part in ("safety", "domain")}
    return spec.model_copy(update={"data": data.model_copy(update=parts)})
