"""Person re-identification: do generated images show the person of their source photo?

    python -m metrics.reid --gt_path=./dataset/fashion/test --distorated_path=./results/DPTN_fashion \\
        --reid_weights ./fast-reid-master/logs/Fashion/bagtricks_R50-ibn/model_final.pth
    python -m metrics.reid --gt_path=./dataset/market/test --distorated_path=./results/DPTN_market --market \\
        --reid_weights market_bot_R50-ibn.pth

Each generated image is a query: it ranks a gallery of real photos by the distance of their features, and photos of its
person should come first. Network and scores are those of fast-reid, which the paper's authors used. Which images they
compared is not published, so that it is inferred (docs/evaluation.md). All flags: python -m metrics.reid --help
"""

import shutil
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from data import find_dataset
from data.pairs import Pair, read_pairs
from metrics import fid, report
from metrics.evaluation import EvaluationSetup, Measurement, Networks
from metrics.metrics import describe_inputs, find_samples, summarize_run
from metrics.options import choose_batch_size
from metrics.pairing import Problems
from metrics.protocols import View
from metrics.reid_network import SIZE, WIDTH, ReidNetwork, to_input
from metrics.reid_options import CPU_BATCH, parse, switches
from metrics.reid_people import Lists, describe_classes, gallery_names, make_lists, split_by_person, write_list
from metrics.reid_ranking import PROTOCOL, SCORES, FeatureRows, LabeledFeatures, Ranking, rank_gallery
from metrics.stream import Item, PairDataset, PhotoDataset, load_batches
from util.device import describe_device, select_device, use_precision
from util.errors import UserError, run_main
from util.files import append_bytes
from util.image import list_photos, to_pil
from util.pretrained import weights_hash

NOTE = "protocol inferred, not published"


class FeatureFile(NamedTuple):
    """The features of the images that could be read, WIDTH float32 each. `rows`: the row of each image in `file`."""

    rows: dict[Path, int]
    file: Path


@dataclass
class PersonPhotos(PhotoDataset):
    """Index of a photo -> its `index`, and the `image` as the network sees it."""

    @property
    def item_bytes(self) -> int:
        """How much memory an item takes."""
        return 3 * SIZE[0] * SIZE[1]

    def __getitem__(self, index: int) -> Item:
        image, problems = super().__getitem__(index)
        return (None if problems else {"index": index, "image": to_input(to_pil(image))}), problems


def main() -> None:
    args = parse()
    if args.compare:
        print(report.compare(args.compare, args.published))
        return
    start = time.perf_counter()
    pairs = read_pairs(args.pairs) if args.pairs else None
    problems = Problems(args.allow_missing)
    setup = make_setup(args, pairs, problems)
    lists = make_lists(args, setup.pairs.samples, setup.real_photos.names, pairs)
    if args.list:
        write_list(args.list, lists)
        print(f"{args.list}: {len(lists.queries):,} queries, {len(lists.gallery):,} photos in the gallery ({NOTE})")
        print("\n".join(summarize_run(args, setup, problems)))
        return
    report.check_outputs(args.out, args.per_image, args.html)
    network = ReidNetwork(args.reid_weights, args.reid_pool).to(setup.device)
    trained_on = describe_training(args, network)
    weights = {"source": str(args.reid_weights), "sha256": weights_hash(network)}
    record = describe_inputs(args, setup, Networks(weights={PROTOCOL: weights}))  # an unreadable file fails early
    print(f"{len(lists.queries):,} queries, {len(lists.gallery):,} photos, {describe_device(setup.device)}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        ranking, counts = evaluate(args, setup, network, lists, problems, Path(scratch))

    means = {name: Measurement.of(ranking.scores[name].to_numpy()) for name in SCORES}
    measurements = {PROTOCOL: {name: replace(mean, n_real=counts["gallery"]) for name, mean in means.items()}}
    values = ranking.scores.set_axis([(PROTOCOL, name) for name in SCORES], axis="columns")
    record |= {"note": NOTE, "classes": network.classes, "trained on": trained_on, **counts}
    record["time"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    record["seconds"] = round(time.perf_counter() - start, 3)
    record["problems"] = problems.counts()
    report.append_records(args.out, record, measurements, {PROTOCOL: switches(args)})
    summary = [*summarize_run(args, setup, problems), *describe_protocol(args, counts), trained_on]
    if args.per_image:
        report.write_per_image(args.per_image, setup.pairs.samples, values, pairs)
    if args.html:
        from metrics.page import write_evaluation_page

        write_evaluation_page(args.html, args.name, summary, measurements, values, setup.pairs, args.source_path)
    print("\n".join([report.format_table(report.results_table(measurements)), *summary]))
    print(f"{record['seconds']:.0f} s; recorded in {args.out}")


def make_setup(args: Namespace, pairs: Sequence[Pair] | None, problems: Problems) -> EvaluationSetup:
    """Read and check everything but the images themselves."""
    device = select_device(args.gpu_ids)
    use_precision(args.precision, device)
    samples, wrong = find_samples(args, pairs)
    samples, mixed = split_by_person(args, samples)
    problems.add([*wrong, *mixed], last=True)
    if args.baseline == "real":
        samples = [sample._replace(generated=args.gt_path / sample.target) for sample in samples]
    if not samples:
        raise UserError("nothing to evaluate: no result has a target photo")
    size = find_dataset(args.dataset_mode).stored_size
    names = gallery_names(args, list_photos(args.gt_path).photos)
    gallery = PersonPhotos(args.gt_path, names, View(size))
    queries = PairDataset(samples, args.gt_path, args.dataset_mode, [], [], None, keep_images=False)
    batch_size = choose_batch_size(args, device, CPU_BATCH)
    return EvaluationSetup(queries, gallery, None, args.cache_dir, device, args.precision, batch_size, args.nThreads)


def describe_training(args: Namespace, network: ReidNetwork) -> str:
    """A line about the people that the network was trained on; a warning where they do not fit, or the file is old."""
    told, contradicts = describe_classes(network.classes, args.identity)
    if contradicts:
        print(f"warning: {told}, but --identity is {args.identity}", file=sys.stderr)
    if network.is_old and network.pool == "unpadded":
        origin = "was written by a fast-reid of before September 2020, whose max pool was padded until August"
        advice = "if the weights are that old, give --reid_pool padded"
        print(f"note: {args.reid_weights} {origin}: {advice}", file=sys.stderr)
    return told


def evaluate(
    args: Namespace, setup: EvaluationSetup, network: ReidNetwork, lists: Lists, problems: Problems, scratch: Path
) -> tuple[Ranking, dict[str, int]]:
    """Rank the gallery for every query. Images that cannot be read go to `problems`, which may raise.

    Features go to the disk, into the cache or the empty folder `scratch`, so that the memory does not grow with them.

    Also returns how many queries were ranked and were skipped, how many photos and people are in the gallery, and how
    many times a photo was junk.
    """
    # the real photos come first, so that a broken one fails early
    photos = photo_features(setup, network, setup.real_photos, problems, scratch / "real photos")
    gallery, gallery_people = select(lists.gallery, photos)
    queries, query_people = select(lists.queries, query_features(args, setup, network, photos, problems, scratch))
    positions = {name: position for position, name in enumerate(gallery.index)}
    left_out = [[positions[name] for name in lists.left_out[query] if name in positions] for query in queries.index]
    ranking = rank_gallery(query_people, gallery_people, left_out)
    ranking.scores.index = queries.index[ranking.scores.index]
    if ranking.scores.empty:
        junk = f"{ranking.junk:,} times a photo of the person was left out, because it has the query's camera"
        raise UserError(f"no query has a photo of its person among the {len(gallery):,} of the gallery; {junk}")
    counts = {"queries": len(ranking.scores), "skipped": len(queries) - len(ranking.scores), "gallery": len(gallery)}
    return ranking, counts | {"gallery people": gallery["person"].nunique(), "junk": ranking.junk}


def query_features(
    args: Namespace, setup: EvaluationSetup, network: ReidNetwork, photos: FeatureFile, problems: Problems,
    scratch: Path,
) -> FeatureFile:  # fmt: skip
    """Features of the generated images, or of a baseline's photos. `photos`: the features of --gt_path."""
    view = setup.real_photos.view
    if not args.baseline:
        paths = [str(sample.generated) for sample in setup.pairs.samples]
        return extract(setup, network, PersonPhotos(Path(), paths, view), problems, scratch / "queries")
    if args.baseline == "copy_source" and args.source_path != args.gt_path:
        sources = PersonPhotos(args.source_path, list_photos(args.source_path).photos, view)
        return photo_features(setup, network, sources, problems, scratch / "source photos")
    return photos


def photo_features(
    setup: EvaluationSetup, network: ReidNetwork, photos: PersonPhotos, problems: Problems, file: Path
) -> FeatureFile:
    """Features of real photos, from the cache if possible, else in the new `file`."""
    settings = {"network": PROTOCOL, "weights": weights_hash(network), "max pool": network.pool}
    settings |= {"precision": setup.precision, "size": photos.view.size}
    cached = fid.cache_file(setup.cache_dir, photos.folder, photos.names, settings).with_suffix(".float32")
    if cached.is_file() and cached.stat().st_size == len(photos) * WIDTH * np.dtype(np.float32).itemsize:
        return FeatureFile({photos.folder / name: row for row, name in enumerate(photos.names)}, cached)
    features = extract(setup, network, photos, problems, file)
    if len(features.rows) == len(photos):  # features without some photos must not be found in the cache
        with file.open("rb") as written:
            fid.write_cache(cached, lambda opened: shutil.copyfileobj(written, opened))
    return features


@torch.inference_mode()
def extract(
    setup: EvaluationSetup, network: ReidNetwork, photos: PersonPhotos, problems: Problems, file: Path
) -> FeatureFile:
    """Features of all photos that can be read, in the new `file`; the progress bar shows its name."""
    rows = {}
    for batch in load_batches(photos, setup.batch_size, setup.workers, file.name, problems):
        with setup.autocast():
            features = network(batch["image"].to(setup.device))
        append_bytes(file, features.cpu().numpy().tobytes())
        rows |= {photos.folder / photos.names[i]: row for row, i in enumerate(batch["index"].tolist(), len(rows))}
    return FeatureFile(rows, file)


def select(table: pd.DataFrame, features: FeatureFile) -> tuple[pd.DataFrame, LabeledFeatures]:
    """The rows of a table of `Lists` whose images could be read, and what their ranking needs."""
    table = table[table["path"].isin(features.rows)]
    values = FeatureRows(features.file, table["path"].map(features.rows).to_numpy(int), WIDTH)
    return table, LabeledFeatures(values, table["person"].to_numpy(), table["camera"].to_numpy())


def describe_protocol(args: Namespace, counts: dict[str, int]) -> list[str]:
    """Lines for the console and the web page: which switches were used, and what was compared."""
    photos = f"gallery of {counts['gallery']:,} photos of {counts['gallery people']:,} people"
    lines = [
        f"{NOTE}: {report.describe_switches(switches(args))}",
        f"{counts['queries']:,} queries; {photos}; {counts['junk']:,} times junk, of the query's person and camera",
    ]
    if counts["skipped"]:
        lines.append(f"{counts['skipped']:,} queries were skipped: no (other) photo of their person is in the gallery")
    return lines


if __name__ == "__main__":
    run_main(main)
