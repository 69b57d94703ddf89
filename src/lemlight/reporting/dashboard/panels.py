"""The panels of workspace and report, by W&B's own classes."""

from typing import Any

from lemlight.reporting.dashboard.contents import Contents
from lemlight.reporting.localization_table import FIGURE_NAMES
from lemlight.reporting.names import METRIC_NAMES

NAMES = {**METRIC_NAMES, **FIGURE_NAMES}
CURVES = {
    "val/auroc": "AUC on the validation split",
    "val/loss": "loss on the validation split",
    "train/loss": "loss of the training",
    "lambda": "lambda of the combined loss",
}
WIDE, HALF, THIRD = 24, 12, 8  # of the 24 columns of a report


def bars(contents: Contents) -> list[Any]:
    """Every figure by pooling: mean over its runs with the standard deviation as error."""
    import wandb_workspaces.reports.v2.interface as wr

    return [
        wr.BarPlot(
            title=f"{NAMES[figure]} by pooling (mean, standard deviation over runs)",
            metrics=[contents.column(figure)],
            groupby=wr.Config("pooling.name"),
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
            max_runs_to_show=len(contents.run_ids),
            max_bars_to_show=max(1, len(contents.poolings)),
            layout=wr.Layout(w=HALF, h=8),
        )
        for figure in contents.figures
    ]


def against(contents: Contents) -> list[Any]:
    """AUC against DSC, a point a run; nothing where there is no DSC."""
    import wandb_workspaces.reports.v2.interface as wr

    if not {"auroc", "dsc"} <= set(contents.figures):
        return []
    return [
        wr.ScatterPlot(
            title="AUC against DSC, a point per run",
            x=wr.SummaryMetric(contents.column("auroc")),
            y=wr.SummaryMetric(contents.column("dsc")),
            legend_template="${run:displayName}",
            layout=wr.Layout(w=HALF, h=8),
        )
    ]


def curves() -> list[Any]:
    """Validation figures, losses and lambda over the epochs: by pooling, mean and range."""
    import wandb_workspaces.reports.v2.interface as wr

    return [
        wr.LinePlot(
            title=title,
            x="epoch",
            y=[name],
            groupby=wr.Config("pooling.name"),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            title_x="epoch",
            layout=wr.Layout(w=HALF, h=8),
        )
        for name, title in CURVES.items()
    ]


def settings(contents: Contents) -> list[Any]:
    """Parallel coordinates from the settings to AUC and DSC, and the comparer of all columns."""
    import wandb_workspaces.reports.v2.interface as wr

    ends = [name for name in ("auroc", "dsc") if name in contents.figures]
    columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(key), display_name=key) for key in contents.settings]
    columns += [
        wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(contents.column(name)), display_name=NAMES[name])
        for name in ends
    ]
    return [
        wr.ParallelCoordinatesPlot(title="Settings and what came out", columns=columns, layout=wr.Layout(w=WIDE, h=10)),
        wr.RunComparer(diff_only="split", layout=wr.Layout(w=WIDE, h=14)),
    ]


def pictures(contents: Contents) -> list[Any]:
    """The pictures of every run, side by side."""
    import wandb_workspaces.reports.v2.interface as wr

    titles = {"overlays": "Location maps and regions", "sheet": "Images and score maps", "curves": "Training"}
    return [
        wr.MediaBrowser(
            title=titles.get(name, name),
            media_keys=[contents.column(name)],
            num_columns=2,
            layout=wr.Layout(w=WIDE, h=14),
        )
        for name in contents.pictures
    ]


def predictions(contents: Contents) -> list[Any]:
    """The predictions of all images; an image is called by its row in predictions.csv."""
    import wandb_workspaces.reports.v2.interface as wr

    return [wr.WeavePanelSummaryTable(table_name=contents.column("predictions"), layout=wr.Layout(w=WIDE, h=14))]
