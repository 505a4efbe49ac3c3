"""The hook of mkdocs.yml: pages made from notebooks, code, model cards and figures join those of docs/.

Everything is made while building and nothing is executed. Links are written as they work in the repository
(`../nbs/44_recognition.ipynb`, `../models/m/MODEL_CARD.md`); here they become links between pages, or to the
repository's host where a file has no page."""
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import docs_api
import docs_figures
import docs_notebooks

LINK = re.compile(r'(\]\(|(?:src|href)=")(?![a-z]+:|#|/)([^)#"\s]+)')
FENCE = re.compile(r'^( *)(```+|~~~+).*?^\1\2`*\s*?$', re.M | re.S)
LIST_ITEM = re.compile(r'^(?:[-*] |\d+\. |\|)')
BADGE = re.compile(r'!\[([^\]]*)\]\(https?:[^)]*\)')  # an image of another site
MATH = re.compile(r'(?<![\\$\w])\$(?=\S)([^$\n]+?)(?<=\S)\$(?![\w$])')


def sources() -> dict[str, str]:
    "Files of the repository that have a page or are shown in one, {file: place in the site}."
    found = {p.as_posix(): p.relative_to('docs').as_posix() for p in Path('docs').rglob('*') if p.is_file()}
    found |= {p.as_posix(): docs_notebooks.page_name(p) for p in docs_notebooks.all_notebooks()}
    found |= {p.as_posix(): p.as_posix() for p in Path('models').glob('*/*.png')}
    found |= {p.as_posix(): f'models/{p.parent.name}/card.md' for p in Path('models').glob('*/MODEL_CARD.md')}
    return found | {'README.md': 'index.md', 'nbs/index.ipynb': 'index.md', 'CHANGELOG.md': 'changelog.md'}


def made() -> Iterator[tuple[str, str | bytes]]:
    "What exists only in the site: (place, content)."
    yield 'index.md', Path('README.md').read_text(encoding='utf-8')
    yield 'changelog.md', Path('CHANGELOG.md').read_text(encoding='utf-8')
    yield 'notebooks.md', docs_notebooks.index_page()
    yield 'commands.md', docs_api.command_page()
    for name, text in docs_api.python_pages().items(): yield f'api/{name}.md', text


def entry(path: Path) -> dict[str, str]:
    number = path.stem.partition('_')[0] if path.stem[0].isdigit() else ''
    return {f'{number} {docs_notebooks.headline(path)[0]}'.strip(): docs_notebooks.page_name(path)}


def sections(name: str) -> list:
    "What the navigation lists below an entry of mkdocs.yml that ends in `*`."
    if name == 'api': return [{title: f'api/{page}.md'} for page, title in docs_api.themes()]
    if name == 'models': return [{f'Model card: {m}': f'models/{m}/card.md'} for m in docs_figures.names()]
    lanes: dict[str, list] = {}
    for path in docs_notebooks.all_notebooks():
        lanes.setdefault(docs_notebooks.LANES[docs_notebooks.lane_of(path)][0], []).append(entry(path))
    return [{title: pages} for title, pages in lanes.items()]


def expand(nav: list) -> list:
    "The navigation with the pages that are made: `api/*`, `models/*`, `notebooks/*`."
    full: list = []
    for item in nav:
        if isinstance(item, str) and item.endswith('/*'): full += sections(item[:-2])
        elif isinstance(item, dict): full.append({k: expand(v) if isinstance(v, list) else v for k, v in item.items()})
        else: full.append(item)
    return full


def pages_of(nav: list) -> Iterator[str]:
    "Every page that a navigation names."
    for item in nav:
        for value in item.values() if isinstance(item, dict) else [item]:
            if isinstance(value, list): yield from pages_of(value)
            else: yield value


# Markdown of the repository as Python-Markdown reads it

def outside_code(text: str, change) -> str:
    "A text whose parts outside of blocks of code are changed."
    parts, end = [], 0
    for block in FENCE.finditer(text):
        parts += [change(text[end:block.start()]), block[0]]
        end = block.end()
    return ''.join([*parts, change(text[end:])])


def spaced(text: str) -> str:
    "A list or a table begins after an empty line; GitHub and Jupyter need none."
    lines: list[str] = []
    for line in text.split('\n'):
        before = lines[-1] if lines else ''
        starts = LIST_ITEM.match(line) and before.strip() and not LIST_ITEM.match(before) and not before.startswith(' ')
        lines += ['', line] if starts else [line]
    return '\n'.join(lines)


def with_math(text: str) -> str:
    "Formulas as MathML, which browsers show by themselves."
    if '$' not in text: return text
    from latex2mathml.converter import convert

    parts = re.split(r'(`[^`]*`)', text)
    return ''.join(o if i % 2 else MATH.sub(lambda m: convert(m[1]), o) for i, o in enumerate(parts))


def relinked(text: str, place: str, source: str, targets: dict[str, str], host: str) -> str:
    "Links to files of the repository as links of the site; all others are left to MkDocs, which checks them."
    def one(m: re.Match) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), m[2]))
        if path in targets: return m[1] + posixpath.relpath(targets[path], posixpath.dirname(place) or '.')
        return f'{m[1]}{host}/blob/main/{path}' if not path.startswith('..') and Path(path).exists() else m[0]
    return LINK.sub(one, BADGE.sub(r'\1', text))  # a badge becomes its words: pages fetch nothing


class Site:
    "What the events of MkDocs share while building once."

    def __init__(self):
        self.targets, self.host = sources(), docs_notebooks.git_url()
        self.source = {place: path for path, place in self.targets.items() if path != 'nbs/index.ipynb'}
        self.notebooks = {docs_notebooks.page_name(p): docs_notebooks.Page(p) for p in docs_notebooks.all_notebooks()}

    def markdown(self, place: str, text: str) -> str:
        source = self.source.get(place, place)
        def change(part: str) -> str: return spaced(relinked(part, place, source, self.targets, self.host))
        return outside_code(docs_figures.fill(text), change)


def on_config(config):
    config['nav'] = expand(config['nav'])
    return config


def on_files(files, config):
    from mkdocs.structure.files import File

    config.site = site = Site()
    def add(place: str, **content) -> None:
        if not files.get_file_from_path(place): files.append(File.generated(config, place, **content))
    for place, content in made(): add(place, content=content)
    for path, place in site.targets.items():
        if path.startswith('models/'): add(place, abs_src_path=str(Path(path).resolve()))
    for place, page in site.notebooks.items():
        add(place, content=page.markdown)
        for name, picture in page.pictures.items(): add(f'{posixpath.dirname(place)}/{name}', content=picture)
    return files


def on_page_markdown(markdown, page, config, files):
    if page.file.src_uri in config.site.notebooks: page.meta['search'] = {'boost': .2}  # below guides and reference
    return outside_code(config.site.markdown(page.file.src_uri, markdown), with_math)


def on_page_content(html, page, config, files):
    notebook = config.site.notebooks.get(page.file.src_uri)
    html = notebook.insert_html(html) if notebook else html
    scrolls = '<div class="table" tabindex="0" role="region" aria-label="Table">'
    return html.replace('<table', f'{scrolls}<table').replace('</table>', '</table></div>')


def on_post_page(output, page, config):
    "The theme's dialog for searching has no name."
    dialog = 'data-md-component="search" role="dialog"'
    return output.replace(dialog, f'{dialog} aria-label="Search"', 1)
