"""The photos that pose files belong to: their full names and sizes, which most formats leave open."""

from pathlib import Path

from PIL import ExifTags, Image

from data.pairs import photo_stem
from util.errors import UserError
from util.image import PHOTO_SUFFIXES, photo_names

Size = tuple[int, int]  # (H, W)
SIDEWAYS = 5  # EXIF orientations from 5 on exchange height and width


class Photos:
    """Names and sizes from a `folder` of photos, or one `size` (H, W) for all, or what pose files declare."""

    def __init__(self, folder: Path | None = None, size: Size | None = None) -> None:
        if folder and not folder.is_dir():
            raise UserError(f"{folder}: no such folder of photos")
        self.folder, self._size = folder, size
        self._names_by_stem: dict[str, list[str]] = {}
        for name in photo_names(folder) if folder else ():
            self._names_by_stem.setdefault(photo_stem(name), []).append(name)

    def name(self, stem: str) -> str:
        """The photo of the pose file `stem`.json; without a folder, `stem` or `stem`.jpg. Raises UserError."""
        has_suffix = Path(stem).suffix.lower() in PHOTO_SUFFIXES
        if not self.folder:
            return stem if has_suffix else f"{stem}.jpg"
        found = self._names_by_stem.get(photo_stem(stem) if has_suffix else stem, [])
        if len(found) != 1:
            raise UserError(f"{self.folder}: {', '.join(found) or 'no photo'} for the pose of '{stem}', expected one")
        return found[0]

    def size(self, name: str, declared: Size | None = None) -> Size:
        """(H, W) of a photo as viewers show it (EXIF rotation applied), `declared` by its pose file if not known here.

        Raises UserError.
        """
        if self._size:
            return self._size
        if not self.folder:
            if not declared:
                how = "scripts/convert_poses.py takes it by --photos DIR or --size WIDTH HEIGHT"
                raise UserError(f"{name}: the photo's size is needed to turn fractions into pixels; {how}")
            return declared
        try:
            with Image.open(self.folder / name) as image:
                sideways = image.getexif().get(ExifTags.Base.Orientation, 1) >= SIDEWAYS
                return image.size if sideways else (image.height, image.width)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{self.folder / name}: the photo's size cannot be read ({error})") from error


UNKNOWN_PHOTOS = Photos()
