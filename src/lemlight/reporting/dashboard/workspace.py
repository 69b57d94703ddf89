"""The workspace: the panels that a reader explores, over exactly the compared runs."""

from typing import Any

from lemlight.reporting.dashboard import panels
from lemlight.reporting.dashboard.contents import Contents

NAME = "lemlight: pooling methods"


def build_workspace(contents: Contents, entity: str) -> Any:
    """Build the workspace of `contents` (wandb_workspaces.workspaces.Workspace); nothing is asked of any server."""
    import wandb_workspaces.workspaces as ws

    sections = {
        "Poolings compared": [*panels.bars(contents), *panels.against(contents)],
        "Training": panels.curves(),
        "Settings": panels.settings(contents),
        "Pictures": panels.pictures(contents),
        "Predictions": panels.predictions(contents),
    }
    columns = [_column(key) for key in contents.settings]
    columns += [f"summary:{contents.column(figure)}" for figure in contents.figures]
    order = [ws.Ordering(ws.Summary(contents.column(figure)), ascending=False) for figure in contents.figures[:1]]
    return ws.Workspace(
        entity=entity,
        project=contents.project,
        name=NAME,
        sections=[
            ws.Section(name=name, panels=shown, is_open=True, layout_settings=ws.SectionLayoutSettings(columns=2))
            for name, shown in sections.items()
            if shown
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=max(1, len(contents.run_ids))),
        runset_settings=ws.RunsetSettings(
            filters=ws.And(ws.Metric("ID").isin(list(contents.run_ids))), order=order, pinned_columns=columns
        ),
    )


def _column(key: str) -> str:
    """W&B's name of the column of a nested setting."""
    section, _, rest = key.partition(".")
    return f"config:{section}.value.{rest}" if rest else f"config:{section}.value"
