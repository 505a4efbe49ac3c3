"""Write README.md from nbs/index.ipynb; with --check only say whether it is up to date."""
import posixpath
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

INDEX, README = Path('nbs/index.ipynb'), Path('README.md')
LINK = re.compile(r'(\]\(|(?:src|href)=\")(?![a-z]+:|#)([^)#\"]+)')


def from_root(match: re.Match) -> str:
    "A link relative to nbs/ as one relative to the repository's root; it must lead somewhere."
    target = posixpath.normpath(f'nbs/{match[2]}')
    if not Path(target).exists(): sys.exit(f'{INDEX}: broken link {match[2]!r}')
    return match[1] + target


def text_of(output) -> str:
    data = output.get('data', {})
    return data.get('text/markdown') or data.get('text/plain') or output.get('text', '')


def shown(cell):
    "A cell as the reader sees it: without directives, and with `#| echo: false` only what it displays."
    if re.search(r'^#\|\s*echo:\s*false', cell.source, re.M):
        return nbformat.v4.new_markdown_cell('\n\n'.join(map(text_of, cell.outputs)))
    cell.source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M)
    return cell


def render() -> str:
    "The front page as Markdown: hidden cells left out, links mended."
    nb = nbformat.read(INDEX, as_version=4)
    nb.cells = [shown(c) for c in nb.cells if not re.match(r'#\|\s*hide\b', c.source)]
    nb.metadata.setdefault('language_info', {'name': 'python'})  # the language of the code blocks
    text, resources = MarkdownExporter().from_notebook_node(nb)
    if resources['outputs']: sys.exit(f'{INDEX}: save pictures to a file and link to it; a README cannot hold them')
    text = LINK.sub(from_root, re.sub(r'\n{3,}', '\n\n', text)).strip()
    return f'<!-- Written by tools/build_readme.py from {INDEX.as_posix()}: edit that. -->\n\n{text}\n'


if __name__ == '__main__':
    text = render()
    if '--check' in sys.argv:
        if not README.exists() or README.read_text(encoding='utf-8') != text:
            sys.exit(f'{README} is not what {INDEX} gives: run `make readme`')
    else:
        README.write_text(text, encoding='utf-8')
        print(f'wrote {README} ({len(text.splitlines())} lines)')
