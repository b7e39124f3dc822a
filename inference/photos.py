"""Names and sizes of the photos to which keypoint files belong."""

import unicodedata
from pathlib import Path, PureWindowsPath

from data.pairs import result_stem
from util.errors import UserError
from util.files import explain_missing
from util.image import PHOTO_SUFFIXES, photo_names, photo_size

Size = tuple[int, int]  # (H, W)


class Photos:
    """Names and sizes of the photos, from a `folder`, or one `size` (H, W) for all, or what keypoint files declare."""

    def __init__(self, folder: Path | None = None, size: Size | None = None) -> None:
        if folder and not folder.is_dir():
            raise UserError(f"{folder}: no such folder of photos")
        self.folder, self._size = folder, size
        self.has_assumed_names = False  # whether `name` added .jpg
        self._names = set(photo_names(folder)) if folder else set()
        self._names_by_stem: dict[str, list[str]] = {}
        for name in sorted(self._names):
            self._names_by_stem.setdefault(result_stem(name), []).append(name)

    def name(self, stem: str) -> str:
        """The photo of the keypoint file `stem`.json: `stem` itself if the folder has it, else the one of that stem.

        UserError if there is none, or there are several.

        Without a folder, it is `stem` itself if that ends like a photo, else `stem`.jpg.
        """
        has_suffix = Path(stem).suffix.lower() in PHOTO_SUFFIXES
        if not self.folder:
            self.has_assumed_names |= not has_suffix
            return stem if has_suffix else f"{stem}.jpg"
        if stem in self._names:
            return stem
        found = self._names_by_stem.get(result_stem(stem if has_suffix else f"{stem}.jpg"), [])
        if len(found) != 1:
            raise UserError(f"{self.folder}: {', '.join(found) or 'no photo'} for the pose of {stem!r}, expected one")
        return found[0]

    def name_of_path(self, path: str) -> str:
        """The photo that a keypoint file, perhaps of another machine, calls `path`, with / or Windows' separators.

        With a folder, leading parts of the path that the folder lacks are dropped. Without one, an absolute path is
        reduced to the file name. A path without suffix is taken whole, as in `name`.
        """
        windows = PureWindowsPath(path)  # splits at both separators
        if not windows.suffix:
            return self.name(path) if windows.name else path
        if windows.drive and not windows.root:
            return path  # 'a:b.jpg' is no path, and no name of a photo either
        parts = windows.parts[1:] if windows.anchor else windows.parts
        endings = ["/".join(parts[start:]) for start in range(len(parts))]
        return next((ending for ending in endings if ending in self._names), endings[-1 if windows.anchor else 0])

    def name_of_id(self, number: int) -> str:
        """The photo of COCO's image `number`: the photo NUMBER if the folder has one, else with 12 digits."""
        return self.name(str(number) if str(number) in self._names_by_stem else f"{number:012d}")

    def size(self, name: str, declared: Size | None = None) -> Size:
        """(H, W) of a photo as viewers show it. Raises UserError.

        It is the `size` given for all, else the photo's own, else (without a folder) what its keypoint file `declared`.
        """
        if self._size:
            return self._size
        if not self.folder:
            if not declared:
                how = "scripts/convert_poses.py takes it by --photos DIR or --size WIDTH HEIGHT"
                raise UserError(f"{name}: the photo's size is needed; {how}")
            return declared
        if name not in self._names:
            reason = explain_missing([name], self._names, self.folder).get(name, "")
            raise UserError(f"{self.folder / name}: no such photo{reason}")
        return photo_size(self.folder / name)


UNKNOWN_PHOTOS = Photos()


def fits_in_csv(name: str) -> bool:
    """Whether a keypoints csv can hold the photo's name: no colon, quote, control character or spaces around it."""
    has_controls = any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name)
    return not (set(name) & set(':"') or name != name.strip() or has_controls)
