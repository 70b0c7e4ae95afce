"""onnxruntime-web, which runs the model in the reader's browser: two files of a package of npm's.

They come with the npm client, of one version, are compared with their checksums, and are kept in
the user's cache folder. Its maker is Microsoft (MIT licence, which its first lines name).
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path

from llmkit.files import as_path, read_bytes, reading
from llmkit.modern import fetching

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
FILES = {  # its name on the page: its name in the package's folder dist, its SHA-256
    "ort.js": (  # not .mjs, of which some servers do not say that it is a script
        "ort.wasm.bundle.min.mjs",
        "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    ),
    "ort.wasm": (
        "ort-wasm-simd-threaded.wasm",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
}
BYTES = 33_106_585  # of the package as it travels
OTHERWISE = f"or pass --runtime FOLDER with the unpacked package {PACKAGE}"


def find(folder: str | Path | None = None) -> dict[str, bytes]:
    """The two files, by their names on the page. The first call without a folder fetches them, 33
    MB of which 14 MB are kept.

    folder: the unpacked package, or the folder dist in it.

    Raises FileNotFoundError where there is no npm, or no such file in the folder; ConnectionError
    where npm cannot get the package; ValueError for other files than those of this version.
    """
    if folder is None:
        kept = fetching.place(PACKAGE.replace("@", "-"))
        if not kept.is_dir():
            _fetch(kept)
        return _read(kept)
    folder = as_path(folder, "runtime")
    for place in (folder, folder / "dist", folder / "package" / "dist"):
        if all((place / theirs).is_file() for theirs, _ in FILES.values()):
            return _read(place)
    [first, second] = [theirs for theirs, _ in FILES.values()]
    raise FileNotFoundError(
        f"there is no {first} with {second} in {folder}: name the folder of {PACKAGE}, unpacked"
    )


def _read(place: Path) -> dict[str, bytes]:
    found = {}
    for ours, (theirs, sha256) in FILES.items():
        content = read_bytes(place / theirs)
        fetching.check_sum(content, f"{place / theirs} of {PACKAGE}", sha256)
        found[ours] = content
    return found


def _fetch(kept: Path) -> None:
    """Have npm download the package, and keep the two files of it."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(
            f"the page needs {PACKAGE}, which npm fetches, and there is no npm here: install "
            f"Node.js, {OTHERWISE}"
        )
    with tempfile.TemporaryDirectory() as temporary:
        room = Path(temporary)
        command = [npm, "pack", PACKAGE, "--pack-destination", str(room), "--cache", str(room)]
        command += ["--loglevel=error", "--fetch-timeout=10000", "--fetch-retries=1"]
        command += ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=3000"]
        said = fetching.bring(command, room, PACKAGE, BYTES, {"npm_config_update_notifier": "no"})
        packed = room / f"{PACKAGE.replace('@', '-')}.tgz"
        if said is not None or not packed.is_file():
            told = [line.removeprefix("npm error ").removeprefix("code ") for line in said or []]
            reason = told[0] if told else "it does not say why"
            raise ConnectionError(
                f"npm cannot get {PACKAGE} ({reason}): check the network, {OTHERWISE}"
            )
        with reading(packed, "fetch it again"), tarfile.open(packed) as archive:
            found = {}
            for theirs, sha256 in FILES.values():
                member = archive.extractfile(f"package/dist/{theirs}")
                found[theirs] = member.read() if member else b""
                fetching.check_sum(found[theirs], theirs, sha256)
    with fetching.whole(kept) as fresh:
        fresh.mkdir(parents=True)
        for theirs, content in found.items():
            (fresh / theirs).write_bytes(content)
