"""A home folder and a user name for processes that have none: containers started under any user id, services, cron."""

import getpass
import os
import tempfile
from pathlib import Path


def ensure_home() -> None:
    """Set HOME and USER, each where the system does not know it; libraries ask for both and would fail.

    HOME is then a folder of this user below the folder for temporary files. It holds the caches: downloaded weights,
    compiled code, features of real photos. The environment variables XDG_CACHE_HOME and TORCH_HOME choose others.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = f"uid{os.getuid()}"
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = _temporary_home()


def user_cache(name: str) -> Path:
    """The folder of this user's cache `name`, in XDG_CACHE_HOME or ~/.cache; it may not exist yet."""
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / name


def _temporary_home() -> str:
    try:
        home = Path(tempfile.gettempdir()) / f"dptn_{os.getuid()}"
        home.mkdir(mode=0o700, exist_ok=True)
        # compiled code is loaded from here, so a folder that another user has put there is not used
        return str(home) if home.lstat().st_uid == os.getuid() else tempfile.mkdtemp(prefix="dptn_")
    except OSError:  # nothing can be written: caches fail, each with its own message
        return "/nonexistent"
