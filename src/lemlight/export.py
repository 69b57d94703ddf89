"""python -m lemlight.export: a trained network as ONNX with its preprocessing, compared with the network itself."""

from pathlib import Path

from lemlight.cli import run_command, settings_of
from lemlight.limits import hold
from lemlight.settings import ExportSettings


def export(config: ExportSettings) -> None:
    """Export a checkpoint, compare the file with the network, and say by how much they differ.

    Raises:
        LemlightError: a checkpoint or an image that cannot be used, a missing package, or a file whose probabilities
            differ from the network's, which is not left.
    """
    from lemlight.data.reading.io import find_images
    from lemlight.data.reading.isolated import given
    from lemlight.files import write_json, written_aside
    from lemlight.models.exported import (
        TO_WRITE,
        PredictingGraph,
        check_packages,
        compare,
        images_to_compare,
        open_onnx,
        write_onnx,
    )
    from lemlight.predictor import (
        as_batch,
        export_metadata,
        file_in,
        phantom_as_prepared,
        read_images,
    )
    from lemlight.terminal import print_summary
    from lemlight.training.trained import open_networks

    hold(config.limits)
    check_packages(TO_WRITE)
    trained = open_networks([str(file_in(Path(config.checkpoint)))], config.trust)
    trained.classifier.requires_grad_(False)
    prepare = trained.preprocessing
    found = [] if config.input is None else find_images(Path(config.input))
    read = read_images([item.path for item in found], prepare)
    prepared = [as_batch(pixels) for pixels in (phantom_as_prepared(prepare), *(given(one)[2] for one in read))]
    batches = images_to_compare((prepare.height, prepare.width), prepared)
    metadata = export_metadata(trained).model_dump()
    graph, path = PredictingGraph(trained.classifier), Path(config.output) / "model.onnx"
    with written_aside(path) as aside:
        write_onnx(graph, (prepare.height, prepare.width), metadata, aside)
        agreement = compare(graph, open_onnx(aside), batches)
    write_json(metadata, path.with_name("metadata.json"))
    print_summary(
        {
            "exported": f"{path} ({path.stat().st_size / 2**20:.1f} MB)",
            "compared": f"probabilities of {agreement.images} images differ from the network's by at most "
            f"{agreement.probability:.1e}, scores by {agreement.score:.1e}",
            "preprocessing": f"{path.with_name('metadata.json')} (in the file, too)",
        }
    )


def main() -> None:
    """The entry point of `python -m lemlight.export` and of `lemlight-export`."""
    run_command("export", lambda config: export(settings_of(config, ExportSettings)))


if __name__ == "__main__":
    main()
