"""Makes a pairs csv from a keypoints csv: every ordered pair of two photos of one person in one outfit.

    python scripts/make_pairs.py --dataset_mode market --dataroot dataset/mine --phase train
    python scripts/make_pairs.py --dataset_mode market --keypoints poses.csv --out pairs.csv --identity_column person

The rule is PATN's. A photo makes pairs only if its shoulders and hips (joints 2, 5, 8, 11) are all known. The identity
comes from a column of the keypoints csv (--identity_column) or from the photo's name, by the rule of --dataset_mode:
  market               the text before the first underscore; '-1' and '0000', Market-1501's distractors, are left out
  fashion, fashion512  the text up to 'id' and ten digits (item and outfit); for other names the text before the first
                       underscore

From the published keypoints this makes exactly the published pairs of DeepFashion test (8,570), and as many as are
published for Market-1501 train (263,632). Market-1501's 12,000 test pairs are a subset, chosen by an unknown rule, of
the 257,198 that this makes there.
"""

import random
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data import dataset_names, find_dataset
from data.keypoints import TORSO
from data.pairs import PHASES, identity_pairs, read_columns, read_keypoints, write_pairs
from util.arguments import number, positive_int
from util.errors import UserError, run_main


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--dataset_mode", required=True, choices=dataset_names(), help="rules for file names")
    parser.add_argument("--dataroot", type=Path, metavar="DIR", help="default: the one of --dataset_mode")
    parser.add_argument("--phase", choices=PHASES, default="train", help="which csv files of --dataroot")
    parser.add_argument("--keypoints", type=Path, metavar="CSV", help="default: the one of --phase in --dataroot")
    parser.add_argument("--out", type=Path, metavar="CSV", help="pairs csv; default: the one of --phase in --dataroot")
    parser.add_argument("--identity_column", metavar="NAME", help="column of the keypoints csv with the identity")
    parser.add_argument("--max_pairs", type=positive_int, metavar="N", help="keep N pairs, chosen at random")
    parser.add_argument("--seed", type=number(int, 0, 2**32), default=0, help="seed of that choice")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing pairs csv")
    args = parser.parse_args()

    if args.identity_column == "name":
        parser.error("--identity_column name: this column holds the photo's name; give the one that holds the person")
    if args.keypoints and not (args.out or args.dataroot):
        parser.error("--keypoints needs --out CSV, or --dataroot DIR to write into")
    dataset = find_dataset(args.dataset_mode)
    root = args.dataroot or Path(dataset.default_root)
    source = args.keypoints or root / dataset.keypoints_csv.format(phase=args.phase)
    out = args.out or root / dataset.pairs_csv.format(phase=args.phase)
    if out.exists() and not args.overwrite:
        raise UserError(f"{out} exists already; --overwrite replaces it, --out writes elsewhere")
    keypoints = read_keypoints(source)
    identity, distractors = dataset.outfit, dataset.distractors
    if args.identity_column:
        names, persons = read_columns(source, ("name", args.identity_column)).to_numpy().T
        if unknown := list(names[persons == ""]):
            raise UserError(f"{source}: {len(unknown)} rows without {args.identity_column}, such as {unknown[0]}")
        identity, distractors = dict(zip(names, persons)).get, ()

    known = {name: keypoints[name] for name in keypoints if identity(name) not in distractors}
    pairs = identity_pairs(known, identity)
    if not pairs:
        raise UserError(f"{source}: no two photos of one identity with shoulders and hips; see --help for the rule")
    used = {pair.source for pair in pairs}
    incomplete = sum(np.isnan(joints[TORSO]).any() for joints in known.values())
    print(f"{len(keypoints)} photos in {source}")
    if len(known) < len(keypoints):
        print(f"{len(keypoints) - len(known)} left out as distractors ({', '.join(distractors)})")
    print(f"{incomplete} left out because a shoulder or a hip is missing")
    print(f"{len(known) - incomplete - len(used)} left out because no other photo of their identity remains")
    print(f"{len(pairs)} pairs of {len(used)} photos of {len(set(map(identity, used)))} identities")
    if args.max_pairs and args.max_pairs < len(pairs):
        chosen = random.Random(args.seed).sample(range(len(pairs)), args.max_pairs)
        pairs = [pairs[index] for index in sorted(chosen)]
        print(f"{len(pairs)} of them kept (--max_pairs, seed {args.seed})")
    write_pairs(out, pairs)
    print(f"written to {out}")


if __name__ == "__main__":
    run_main(main)
