"""The report: the question, the table, and the panels in reading order."""

from typing import Any

from lemlight.reporting.dashboard import panels
from lemlight.reporting.dashboard.contents import Contents

TITLE = "Pooling methods compared"


def build_report(contents: Contents, entity: str, question: str, table: str = "") -> Any:
    """Build the report of `contents` (wandb_workspaces.reports.v2.Report).

    With an entity, W&B is asked for its project when the report is made JSON or saved.

    Args:
        contents: what to show.
        entity: user or team at W&B, empty where it is not known.
        question: what the report is to answer.
        table: Markdown, shown below the question.
    """
    import wandb_workspaces.reports.v2.interface as wr
    import wandb_workspaces.workspaces as ws

    def grid(shown: list[Any]) -> list[Any]:
        runs = wr.Runset(
            entity=entity,
            project=contents.project,
            name="compared runs",
            filters=ws.And(ws.Metric("ID").isin(list(contents.run_ids))),
        )
        return [wr.PanelGrid(runsets=[runs], panels=shown)]

    parts = {
        "Which pooling is best?": [*panels.bars(contents), *panels.against(contents)],
        "How did they train?": panels.curves(),
        "Which settings matter?": panels.settings(contents),
        "Where do they look?": panels.pictures(contents),
        "What do they say of every image?": panels.predictions(contents),
    }
    blocks: list[Any] = [wr.P(question), wr.TableOfContents(), wr.P(_what(contents))]
    blocks += [wr.MarkdownBlock(table)] if table else []
    for heading, shown in parts.items():
        blocks += [wr.H2(heading), *grid(shown)] if shown else []
    return wr.Report(
        entity=entity, project=contents.project, title=TITLE, description=question, blocks=blocks, width="fluid"
    )


def _what(contents: Contents) -> str:
    runs = "1 training" if len(contents.run_ids) == 1 else f"{len(contents.run_ids)} trainings"
    return (
        f"{runs}, pooling {', '.join(contents.poolings)}; figures on the {contents.split} split. In the table of "
        "predictions an image is called by its row in predictions.csv of its run folder: no name leaves the machine."
    )
