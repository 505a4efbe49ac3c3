"""Packaging: everything is read from settings.ini, so that nbdev and pip share one source."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

ini = ConfigParser(delimiters=['='])
ini.read('settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
NAMES = 'train', 'video', 'cluster', 'notebook', 'heif', 'e2e'
extras = {name: cfg[f'{name}_requirements'].split() for name in NAMES}
extras['notebook'] += extras['video']
extras['cluster'] += extras['video']
extras['dev'] = sum((extras[o] for o in ('train', 'notebook', 'cluster', 'heif')), cfg['dev_requirements'].split())

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'],
    long_description=Path('README.md').read_text(encoding='utf-8') if Path('README.md').exists() else '',
    long_description_content_type='text/markdown',
    author=cfg['author'], url=cfg['git_url'], license='Apache-2.0', license_files=['LICENSE'],
    project_urls={'Changelog': f"{cfg['git_url']}/blob/main/CHANGELOG.md", 'Issues': f"{cfg['git_url']}/issues"},
    python_requires=f">={cfg['min_python']}",
    packages=[*find_packages(include=['fer_nb', 'fer_nb.*']), 'fer_nb.models'],
    package_dir={'fer_nb.models': 'models'},
    package_data={
        'fer_nb': ['py.typed', 'static/*', 'voila/templates/*/*'],
        'fer_nb.models': ['*', '*/*.md', '*/*.json'],
    },
    install_requires=cfg['requirements'].split(), extras_require=extras,
    entry_points={'console_scripts': cfg['console_scripts'].split()},
)
