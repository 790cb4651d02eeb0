"""The sample pictures that the page offers, and the folders of a page while it is served."""

import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

PHOTOGRAPHS = ("china", "chelsea", "coffee", "flower", "rocket", "astronaut")
STYLES = ("swirls", "stained_glass", "mosaic", "autumn_oil", "woodcut", "ink_wave", "watercolour")


@dataclass(frozen=True)
class Folders:
    """Where files live while the page is served."""

    root: Path

    @property
    def sent(self) -> Path:
        """Gradio's folder of uploads and downloads."""
        return self.root / "sent"

    @property
    def samples(self) -> Path:
        """Copies of the sample pictures, in a folder that Gradio may serve."""
        return self.root / "samples"

    def results(self, session: str) -> Path:
        """The folder of the files written for one open page."""
        return self.root / "results" / "".join(letter for letter in session if letter.isalnum())

    def create(self) -> None:
        """Create the folders and copy the sample pictures."""
        self.sent.mkdir()
        self.samples.mkdir()
        source = Path(str(resources.files("vggfeat_assets"))) / "images"
        for name in (*PHOTOGRAPHS, *STYLES):
            shutil.copyfile(source / f"{name}.jpg", self.samples / f"{name}.jpg")
