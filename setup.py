"""Ships the notebooks in the wheel: notebooks/, where readers browse them, as yoco/notebooks/."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithNotebooks(build_py):
    """Adds the notebooks to what is built; an editable install finds them in the checkout."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "yoco", "notebooks")
            target.mkdir(parents=True, exist_ok=True)
            for path in sorted(Path("notebooks").glob("*.ipynb")):
                self.copy_file(str(path), str(target / path.name))


setup(cmdclass={"build_py": BuildWithNotebooks})
