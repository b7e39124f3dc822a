"""python -m metrics.reid as a user runs it, with a small network, against plain loops; the scene of the goldens."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from data.pairs import Pair, read_pairs, result_name, write_pairs
from metrics import metrics, reid
from metrics.reid_network import to_input
from metrics.reid_people import Lists, write_list
from metrics.reid_ranking import LabeledFeatures, rank_gallery
from tests.formula import formula_images
from tests.helpers import REPOSITORY
from tests.metrics.conftest import REID_GOLDENS, read_jsonl, read_per_image
from tests.metrics.test_reid_network import BOUND, scene_photo
from util.image import decode_photo

SCORES = ["rank1", "rank5", "rank10", "mAP", "mINP"]


class TinyReid(nn.Module):
    """Replaces ReidNetwork: the colors of the quarters of an image. Counts the images it saw."""

    seen, classes, is_old = 0, 751, False

    def __init__(self, weights: Path, pool: str) -> None:
        super().__init__()
        self.pool = pool
        self.register_buffer("version", torch.tensor(len(weights.read_bytes())))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[1:] == (3, 256, 128)
        TinyReid.seen += len(images)
        return F.adaptive_avg_pool2d(images.float() / 255 - 0.5, 2).flatten(1)


@pytest.fixture(autouse=True)
def tiny(monkeypatch, request) -> type[TinyReid]:
    TinyReid.seen, TinyReid.classes, TinyReid.is_old = 0, 751, False
    monkeypatch.setattr(reid, "ReidNetwork", TinyReid)
    monkeypatch.setattr(reid, "WIDTH", 12)
    return TinyReid


@pytest.fixture
def flags(market, results) -> list[str]:
    """Results of 8 pairs of three people; the gallery has a photo more of the first one, and one of nobody."""
    for name in ("0000_c3s1_more.jpg", "-1_c1s1_nobody.jpg"):
        pixels = formula_images(name, (1, 3, 128, 64))[0].transpose(1, 2, 0)
        Image.fromarray(((pixels + 1) * 127.5).astype(np.uint8)).save(market / "test" / name)
    (market.parent / "w.pth").write_bytes(b"weights")
    return [
        f"--gt_path={market}/test", f"--distorated_path={results}", "--market", f"--reid_weights={market.parent}/w.pth",
        "--nThreads=0", f"--cache_dir={market.parent}/cache", "--gpu_id=-1", "--batch_size=3",
    ]  # fmt: skip


@pytest.fixture
def baseline(flags, market) -> list[str]:
    """The same without results."""
    others = [flag for flag in flags if not flag.startswith("--distorated_path")]
    return [*others, f"--out={market.parent}/results/metrics.jsonl"]


def feature(path: Path) -> np.ndarray:
    image = to_input(Image.open(path).convert("RGB")).numpy() / 255 - 0.5
    return image.reshape(3, 2, 128, 2, 64).mean((2, 4)).ravel()


def expected_scores(
    queries: list[tuple[Path, str, int, set[str]]], gallery: list[Path], person: Callable[[str], str],
    camera: Callable[[str], int],
) -> dict[str, float]:  # fmt: skip
    """Plain loops. `queries`: path, person, camera, names left out."""
    rows = []
    for path, who, where, left_out in queries:
        a, right = feature(path), []
        ranked = sorted(gallery, key=lambda p: -(a @ feature(p)) / np.linalg.norm(a) / np.linalg.norm(feature(p)))
        ranked = [p for p in ranked if p.name not in left_out and (person(p.name), camera(p.name)) != (who, where)]
        right = [place for place, p in enumerate(ranked, 1) if person(p.name) == who]
        if right:
            precision = np.mean([number / place for number, place in enumerate(right, 1)])
            rows.append([*(right[0] <= k for k in (1, 5, 10)), precision, len(right) / right[-1]])
    return dict(zip(SCORES, 100 * np.mean(rows, axis=0)), queries=len(rows), skipped=len(queries) - len(rows))


def market_person(name: str) -> str:
    return name.split("_")[0]


def market_camera(name: str) -> int:
    return int(name.split("_")[1][1])


class TestMarket:
    @pytest.mark.parametrize(
        ("switch", "left_out"),
        [
            ("--gallery=test", ""), ("--gallery=pairs", ""), ("--without=target", "target"),
            ("--without=source,target", "target source"), ("--baseline=real", "target"),
            ("--baseline=copy_source", "source"),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("cameras", ["apart", "names"])
    def test_scores_equal_plain_loops(self, switch, left_out, cameras, call, flags, baseline, market, results):
        pairs, photos = read_pairs(market / "market-pairs-test.csv"), market / "test"
        done = call(reid, *(baseline if "baseline" in switch else flags), f"--cameras={cameras}", switch)
        assert done.returncode == 0, done.stderr
        gallery = sorted(path for path in photos.iterdir() if not path.name.startswith("-1"))
        if switch == "--gallery=pairs":
            gallery = [path for path in gallery if path.name in {name for pair in pairs for name in pair}]
        queries = []
        for number, pair in enumerate(pairs):
            path = results / result_name(*pair, "png" if number % 2 else "jpg")
            baselines = {"--baseline=real": photos / pair.target, "--baseline=copy_source": photos / pair.source}
            camera = market_camera(pair.target) if cameras == "names" else 0
            dropped = {getattr(pair, role) for role in left_out.split()}
            queries.append((baselines.get(switch, path), market_person(pair.target), camera, dropped))
        camera = market_camera if cameras == "names" else lambda _: 1
        expected = expected_scores(queries, gallery, market_person, camera)
        (record,) = read_jsonl(results)
        assert {name: record["metrics"][name]["value"] for name in SCORES} == pytest.approx(
            {name: expected[name] for name in SCORES}
        )
        assert (record["queries"], record["skipped"]) == (expected["queries"], expected["skipped"])
        assert record["gallery"] == len(gallery)
        assert record["metrics"]["mAP"]["n_real"] == len(gallery)

    def test_output_tells_the_protocol(self, call, flags, results):
        done = call(reid, *flags)
        assert done.returncode == 0, done.stderr
        switches = {
            "identity": "person",
            "gallery": "test",
            "without": "nothing",
            "cameras": "names",
            "max pool": "unpadded",
        }
        (record,) = read_jsonl(results)
        assert record["protocol"] == "re-id"
        assert record["note"] == "protocol inferred, not published"
        assert record["switches"] == switches
        assert record["classes"] == 751
        assert re.fullmatch("[0-9a-f]{64}", record["weights"]["re-id"]["sha256"])
        told = ", ".join(f"{name} {value}" for name, value in switches.items())
        assert f"protocol inferred, not published: {told}\n" in done.stdout
        assert "N = 751 people, as many as training people of Market-1501\n" in done.stdout
        assert re.search(r"^rank1 ↑ +\d+\.\d{6} .* 8 vs 7$", done.stdout, re.M)

    def test_per_image_csv_has_the_scores_of_each_query(self, call, flags, results, market):
        assert call(reid, *flags, f"--per_image={market}/p.csv", f"--html={market}/page").returncode == 0
        rows = read_per_image(market / "p.csv")
        assert [tuple(row) for row in rows[["source", "target"]].to_numpy()] == read_pairs(
            market / "market-pairs-test.csv"
        )
        (record,) = read_jsonl(results)
        for name in SCORES:
            assert rows[f"re-id:{name}"].astype(float).mean() == pytest.approx(record["metrics"][name]["value"])
        page = (market / "page/index.html").read_text()
        assert "protocol inferred, not published" in page
        assert page.count("<svg") == 5

    def test_photos_are_cached_and_shared_by_baselines(self, call, flags, baseline, market, tiny):
        def seen(*command: str) -> int:
            before = tiny.seen
            done = call(reid, *command)
            assert done.returncode == 0, done.stderr
            return tiny.seen - before

        assert seen(*flags) == 7 + 8
        (cached,) = (market.parent / "cache").iterdir()
        cached.write_bytes(cached.read_bytes()[:-1])
        assert seen(*flags) == 7 + 8
        assert seen(*flags, "--gallery=pairs") == 8
        assert seen(*baseline, "--baseline=real") == seen(*baseline, "--baseline=copy_source") == 0
        assert seen(*flags, "--reid_pool=padded") == 7 + 8
        (market.parent / "w.pth").write_bytes(b"other weights")
        assert seen(*flags) == 7 + 8

    def test_compare_shows_each_protocol_in_a_table_of_its_own(self, call, flags, results):
        for name in ("first", "second"):
            call(reid, *flags, f"--name={name}")
        call(reid, *flags, "--cameras=apart")
        shared = [flag for flag in flags if not flag.startswith("--reid_weights")]
        assert call(metrics, *shared, "--metrics=l1").returncode == 0
        outputs = [call(module, f"--compare={results.parent}/metrics.jsonl").stdout for module in (reid, metrics)]
        assert outputs[0] == outputs[1]
        tables = [table.splitlines() for table in outputs[0].strip().split("\n\n")]
        switches = "identity person, gallery test, without nothing, cameras {}, max pool unpadded"
        titles = [f"market, re-id: {switches.format(cameras)}" for cameras in ("names", "apart")]
        assert [table[0] for table in tables] == [*titles, "market, dptn protocol"]
        assert [line.split()[0] for line in tables[0][2:7]] == SCORES
        assert [line.split(":")[0] for line in tables[0][7:]] == ["[1] first", "[2] second"]

    def test_allow_missing_leaves_out_broken_images(self, call, flags, results, market):
        pairs, photos = read_pairs(market / "market-pairs-test.csv"), sorted((market / "test").iterdir())
        broken, *good = sorted(results.iterdir())
        broken.write_bytes(b"no photo")
        (market / "test/0000_c3s1_more.jpg").write_bytes(b"no photo")
        done = call(reid, *flags)
        assert (done.returncode, "0000_c3s1_more.jpg" in done.stderr) == (2, True)
        done = call(reid, *flags, "--allow_missing", f"--per_image={market}/p.csv")
        assert done.returncode == 0, done.stderr
        (record,) = read_jsonl(results)
        assert record["problems"] == {"unreadable": 2}
        pairs = {results / result_name(*pair, ending): pair for pair in pairs for ending in ("jpg", "png")}
        queries = [(path, market_person(pairs[path].target), market_camera(pairs[path].target), set()) for path in good]
        gallery = [path for path in photos if not path.name.startswith(("-1", "0000_c3s1_more"))]
        expected = expected_scores(queries, gallery, market_person, market_camera)
        assert (record["queries"], record["skipped"]) == (expected["queries"], expected["skipped"])
        assert {name: record["metrics"][name]["value"] for name in SCORES} == pytest.approx(
            {name: expected[name] for name in SCORES}
        )
        assert (len(queries), record["gallery"]) == (7, 6)
        assert not (market.parent / "cache").exists()  # features without a photo are not cached


class TestFashion:
    @pytest.fixture
    def fashion(self, tmp_path) -> Path:
        """Two items in two outfits, two views each; results of each outfit's pairs."""
        root = tmp_path / "fashion"
        (root / "test").mkdir(parents=True)
        (tmp_path / "results/x").mkdir(parents=True)
        (tmp_path / "w.pth").write_bytes(b"weights")
        pairs = []
        for number, stem in enumerate(
            f"fashionWOMENTeesid0000000{item}0{outfit}" for item in (1, 2) for outfit in (1, 2)
        ):
            names = [f"{stem}_{view}.jpg" for view in ("1front", "3back")]
            for name in names:
                pixels = formula_images(name, (1, 3, 256, 176))[0].transpose(1, 2, 0)
                Image.fromarray(((pixels + 1) * (90 + 10 * number)).astype(np.uint8)).save(root / "test" / name)
            pairs += [Pair(*names), Pair(*names[::-1])]
        write_pairs(root / "fasion-resize-pairs-test.csv", pairs)
        for pair in pairs:
            Image.open(root / "test" / pair.target).rotate(5).save(tmp_path / "results/x" / result_name(*pair))
        return root

    def flags(self, fashion: Path) -> list[str]:
        folder = fashion.parent
        return [
            f"--gt_path={fashion}/test", f"--distorated_path={folder}/results/x", f"--reid_weights={folder}/w.pth",
            "--nThreads=0", f"--cache_dir={folder}/cache", "--gpu_id=-1",
        ]  # fmt: skip

    @pytest.mark.parametrize(("identity", "digits"), [("outfit", 10), ("item", 8)])
    def test_scores_equal_plain_loops(self, identity, digits, call, fashion):
        done = call(reid, *self.flags(fashion), f"--identity={identity}")
        assert done.returncode == 0, done.stderr

        def person(name: str) -> str:
            return name[: name.index("id") + 2 + digits]

        results = fashion.parent / "results/x"
        queries = [
            (results / result_name(*pair), person(pair.target), 0, set())
            for pair in read_pairs(fashion / "fasion-resize-pairs-test.csv")
        ]
        expected = expected_scores(queries, sorted((fashion / "test").iterdir()), person, lambda _: 1)
        (record,) = read_jsonl(results)
        for name in SCORES:
            assert record["metrics"][name]["value"] == pytest.approx(expected[name])
        assert record["switches"]["cameras"] == "apart"
        assert record["gallery people"] == (4 if identity == "outfit" else 2)

    @pytest.mark.parametrize(
        ("classes", "identity", "told", "warned"),
        [
            (12_029, "outfit", "N = 12,029 people, as many as training outfits of DeepFashion", False),
            (12_029, "item", "N = 12,029 people, as many as training outfits of DeepFashion", True),
            (7_654, "outfit", "N = 7,654 people, as many as training items of DeepFashion", True),
            (751, "outfit", "as many as training people of Market-1501", True),
            (100, "outfit", "N = 100 people, which is no known number of people or outfits", False),
            (None, "item", "the weights have no classifier", False),
        ],
    )
    def test_classes_that_contradict_the_identity_are_a_warning(
        self, classes, identity, told, warned, call, fashion, tiny
    ):
        tiny.classes = classes
        done = call(reid, *self.flags(fashion), f"--identity={identity}")
        assert told in done.stdout
        assert (f"but --identity is {identity}" in done.stderr) == warned

    def test_old_weights_are_a_note_about_the_max_pool(self, call, fashion, tiny):
        tiny.is_old = True
        assert "give --reid_pool padded" in call(reid, *self.flags(fashion)).stderr
        assert "padded" not in call(reid, *self.flags(fashion), "--reid_pool=padded").stderr

    def test_names_give_the_view_as_camera(self, call, fashion):
        """All that is left of an outfit is the other view, because the target has the query's camera."""
        assert call(reid, *self.flags(fashion), "--cameras=names", f"--list={fashion}/l.csv").returncode == 0
        table = pd.read_csv(fashion / "l.csv")
        assert table["camera"].to_list() == [3, 1] * 4 + [1, 3] * 4

    def test_list_has_queries_and_gallery(self, call, fashion):
        """Without weights; a number for each outfit, the same on both sides."""
        flags = [flag for flag in self.flags(fashion) if not flag.startswith("--reid_weights")]
        done = call(reid, *flags, f"--list={fashion}/new/l.csv")
        assert done.returncode == 0, done.stderr
        assert "8 queries, 8 photos in the gallery" in done.stdout
        table = pd.read_csv(fashion / "new/l.csv")
        assert list(table) == ["role", "path", "person", "camera"]
        assert table["role"].to_list() == ["query"] * 8 + ["gallery"] * 8
        assert table["person"].to_list() == [0, 0, 1, 1, 2, 2, 3, 3] * 2
        assert table["camera"].to_list() == [0] * 8 + [1] * 8
        assert all(Path(path).is_file() for path in table["path"])
        assert not (fashion.parent / "results/metrics.jsonl").exists()


class TestErrors:
    @pytest.mark.parametrize(
        ("more", "expected"),
        [
            (["--reid_weights=gone.pth"], "--reid_weights gone.pth: no such file"),
            (["--identity=item"], "--identity item is for DeepFashion"),
            (["--without=person"], "--without: 'person' is not one of target, source"),
            (["--pairs=none", "--gallery=pairs"], "--gallery pairs needs --pairs"),
            (["--pairs=none", "--without=source"], "--without source needs --pairs"),
            (["--list=l.csv", "--without=target"], "--list: fast-reid cannot leave photos out for one query"),
            (["--baseline=real"], "give one of --distorated_path"),
            (["--compare=x.jsonl"], "--compare evaluates nothing: leave out"),
        ],
    )
    def test_bad_command_line_is_one_clear_error(self, more, expected, call, flags):
        done = call(reid, *flags, *more)
        assert done.returncode == 2
        assert expected in done.stderr.splitlines()[-1]

    def test_no_weights_are_an_error(self, call, flags):
        done = call(reid, *(flag for flag in flags if not flag.startswith("--reid_weights")))
        assert done.returncode == 2
        assert "--reid_weights is needed" in done.stderr

    def test_two_persons_in_a_pair_are_an_error(self, call, flags, results, market):
        pairs = read_pairs(market / "market-pairs-test.csv")
        path = results / result_name(*pairs[0])
        path.rename(results / result_name(pairs[0].source, "0001_c1s1_test.jpg"))
        write_pairs(market / "market-pairs-test.csv", [Pair(pairs[0].source, "0001_c1s1_test.jpg"), *pairs[1:]])
        done = call(reid, *flags)
        assert done.returncode == 2
        assert re.search(r"two persons: .*: 0000 and 0001\n", done.stderr)
        done = call(reid, *flags, "--allow_missing")
        assert done.returncode == 0, done.stderr
        assert read_jsonl(results)[-1]["metrics"]["mAP"]["n"] == len(pairs) - 1
        assert "left out: 1 two persons" in done.stdout

    def test_gallery_without_right_photos_is_an_error(self, call, flags, market):
        for path in (market / "test").glob("*_c[23]*"):
            path.rename(path.with_name(path.name.replace("_c2", "_c1").replace("_c3", "_c1")))
        csv = market / "market-pairs-test.csv"
        csv.write_text("from,to\n" + "\n".join(f"000{i}_c1s1_test.jpg,000{i}_c1s1_test.jpg" for i in range(3)) + "\n")
        done = call(reid, *flags, "--allow_missing")
        assert done.returncode == 2
        assert "no query has a photo of its person" in done.stderr

    def test_names_without_camera_are_an_error(self, call, flags, market):
        (market / "test/0000_c3s1_more.jpg").rename(market / "test/0000_more.jpg")
        done = call(reid, *flags)
        assert done.returncode == 2
        assert "names without the number of a camera; give --cameras apart:\n  0000_more.jpg" in done.stderr

    def test_unwritable_output_fails_before_the_work(self, call, flags, market, tiny):
        (market / "file").touch()
        done = call(reid, *flags, f"--out={market}/file/x.jsonl")
        assert done.returncode == 2
        assert "cannot be written" in done.stderr
        assert tiny.seen == 0


def test_documented_loader_of_fast_reid_reads_the_list(tmp_path, monkeypatch):
    """With a stand-in for fast-reid: Python ints, and an empty training list."""
    loader = re.search(r"```python\n(import csv\n.*?)```", (REPOSITORY / "docs/evaluation.md").read_text(), re.DOTALL)[
        1
    ]
    registry = SimpleNamespace(register=lambda: lambda loaded: loaded)
    base = type("ImageDataset", (), {"__init__": lambda self, *lists, **_: setattr(self, "lists", lists)})
    for name, content in {
        "fastreid": {}, "fastreid.data": {}, "fastreid.data.datasets": {"DATASET_REGISTRY": registry},
        "fastreid.data.datasets.bases": {"ImageDataset": base},
    }.items():  # fmt: skip
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame({"path": ["a.jpg", "b.jpg"], "person": [5, 6], "camera": [0, 1]})
    write_list(Path("people.csv"), Lists(table[:1], table[1:], [[]]))
    names = {}
    exec(loader, names)
    paths = [str(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    train, query, gallery = names["GeneratedPeople"](root="x").lists
    assert (train, query, gallery) == ([], [(paths[0], 5, 0)], [(paths[1], 6, 1)])
    assert all(type(number) is int for number in (*query[0][1:], *gallery[0][1:]))


@pytest.mark.slow
@torch.inference_mode()
def test_scene_equals_fast_reid(reid_network, tmp_path):
    """From files to scores: 21 photos of four sizes, one gray; 7 queries, of which two are skipped."""
    images = []
    for i in range(21):
        scene_photo(i).save(tmp_path / f"{i}.png")
        images.append(to_input(decode_photo(tmp_path / f"{i}.png")))
    features = torch.cat([reid_network(batch) for batch in torch.stack(images).split(8)]).numpy()
    assert np.abs(features[:, ::16] - REID_GOLDENS["scene_after"]).max() < BOUND
    everyone = LabeledFeatures(features, REID_GOLDENS["scene_pid"], REID_GOLDENS["scene_cam"])
    queries, gallery = (LabeledFeatures(*(values[part] for values in everyone)) for part in (slice(7), slice(7, None)))
    scores = rank_gallery(queries, gallery, [[]] * 7).scores
    assert len(scores) == 5
    np.testing.assert_allclose(scores.mean(), REID_GOLDENS["scene_results"][:5], rtol=0, atol=BOUND)


def test_record_is_one_line_of_json(call, flags, results):
    call(reid, *flags)
    (line,) = (results.parent / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["command"]
