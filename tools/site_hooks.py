"""Hooks of mkdocs (mkdocs.yml): what the site needs besides the pages in docs/.

Pages name figures and notebooks by their place in the repository, as GitHub needs it. The site has
them beside its pages. Formulas become MathML, which browsers draw without a script.
"""

import html
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = {"figures": "*.png", "notebooks": "*.ipynb"}  # folders whose files the site takes
FORMULA = re.compile(r'<(?:span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</(?:span|div)>', re.S)
# in notebooks: the text of a cell, and the formulas in it
TEXT = re.compile(r'(?<=data-mime-type="text/markdown">).*?(?=</div>)', re.S)
DOLLARS = re.compile(r"(\$\$?)(?! )([^$]+?)\1")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the notebooks in the navigation."""
    for section in config.nav:
        if "Notebooks" in section:
            names = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
            section["Notebooks"] = [
                {name.replace("_", " · ", 1).replace("_", " "): f"notebooks/{name}.ipynb"}
                for name in names
            ]
    return config


@event_priority(100)  # before mkdocs-jupyter, which looks for notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add figures and notebooks."""
    for folder, pattern in OUTSIDE.items():
        for path in sorted((ROOT / folder).rglob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            if ".ipynb_checkpoints" not in name:
                files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point from a page at the site's figures and notebooks: they lie one folder further down."""
    return re.sub(rf"\]\(\.\./((?:\.\./)*(?:{'|'.join(OUTSIDE)})/)", r"](\1", markdown)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draw formulas as MathML."""
    if page.file.src_uri.endswith(".ipynb"):
        return TEXT.sub(lambda cell: DOLLARS.sub(_drawn, cell[0]), content)
    return FORMULA.sub(_drawn, content)


def _drawn(found: re.Match[str]) -> str:
    display = "block" if found[1] in ("[", "$$") else "inline"
    return convert(html.unescape(found[2]), display=display)
