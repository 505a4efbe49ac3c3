"""The oldest versions that settings.ini allows, on the oldest Python: prediction, video, fine-tuning, export."""
import configparser
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

pytestmark = pytest.mark.timeout(1800)
ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name('uv')
CLASSES = ('happy', 'neutral', 'surprise')


def settings() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(delimiters=['='])
    parser.read(ROOT / 'settings.ini')
    return parser['DEFAULT']


def declared() -> list[Requirement]:
    "What prediction, training and video need."
    lists = (settings()[name] for name in ('requirements', 'train_requirements', 'video_requirements'))
    return [Requirement(text) for text in sorted({text for names in lists for text in names.split()})]


def floor(requirement: Requirement) -> str:
    "The oldest version that a requirement allows."
    return next(o.version for o in requirement.specifier if o.operator == '>=')


def sh(*command, cwd=None) -> str:
    "What a command prints; fails with its last lines where it does not succeed."
    env = {k: v for k, v in os.environ.items() if not k.startswith(('FER_NB', 'PYTHON', 'VIRTUAL_ENV'))}
    env |= dict(PYTHONPATH=str(ROOT), TF_CPP_MIN_LOG_LEVEL='3', MPLBACKEND='agg')
    done = subprocess.run([str(o) for o in command], cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        words = ' '.join(str(o) for o in command)
        pytest.fail(f'{words}\nexit code {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}', pytrace=False)
    return done.stdout


@pytest.fixture(scope='module')
def python(tmp_path_factory) -> Path:
    "The Python of an environment with the floors."
    home = tmp_path_factory.mktemp('floors')
    (home / 'floors.txt').write_text('\n'.join(map(str, declared())))
    sh(UV, 'venv', '--quiet', '--python', settings()['min_python'], home / 'env')
    python = home / 'env/bin/python'
    sh(UV, 'pip', 'install', '--quiet', '--resolution', 'lowest-direct', '--python', python, '-r', home / 'floors.txt')
    return python


@pytest.fixture(scope='module')
def fer_nb(python, tmp_path_factory):
    "The command, in a folder of its own; returns what it prints."
    folder = tmp_path_factory.mktemp('work')
    return lambda *words: sh(python, '-m', 'fer_nb', *words, cwd=folder)


@pytest.fixture(scope='module')
def class_folder(faces, tmp_path_factory) -> Path:
    "A dozen synthetic faces for each of three classes."
    import cv2

    folder = tmp_path_factory.mktemp('classes')
    for name in CLASSES:
        (folder / name).mkdir()
        for i, image in enumerate(faces.images[faces.labels == faces.classes.index(name)][:12]):
            cv2.imwrite(str(folder / name / f'{i}.png'), image)
    return folder


@pytest.fixture(scope='module')
def clip(photos, tmp_path_factory) -> Path:
    "A second of video that shows a portrait."
    import av
    import cv2

    image = cv2.resize(cv2.imread(str(photos[0])), (256, 300))
    path = tmp_path_factory.mktemp('clip') / 'clip.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 256, 300, 'yuv420p', 2_000_000
        for _ in range(10): container.mux(stream.encode(av.VideoFrame.from_ndarray(image, 'bgr24')))
        container.mux(stream.encode())
    return path


def test_versions(python):
    "Each floor is the version that is installed: none is older than what the others allow."
    installed = {o['name']: o['version'] for o in json.loads(sh(UV, 'pip', 'list', '--format', 'json', '-p', python))}
    pairs = {o.name: (floor(o), installed[o.name]) for o in declared()}
    wrong = {name: pair for name, pair in pairs.items() if len(set(map(Version, pair))) > 1}
    assert not wrong, f'package: (declared, oldest that can be installed): {wrong}'


def test_conflicts(python):
    sh(UV, 'pip', 'check', '--quiet', '--python', python)


@pytest.mark.parametrize('kind', ['jpg', 'png', 'gif', 'webp', 'tif', 'bmp'])
def test_photo(fer_nb, photos, tmp_path, kind):
    "One face in a photo of each kind."
    from PIL import Image

    Image.open(photos[0]).save(photo := tmp_path / f'photo.{kind}')
    found = json.loads(fer_nb('predict', photo, '--json'))
    assert (found['status'], len(found['faces'])) == ('ok', 1), found


def test_video(fer_nb, clip, tmp_path):
    "A table, a timeline, a summary, and a video with the face marked."
    told = json.loads(fer_nb('video', clip, '--out', tmp_path, '--quiet', '--json'))
    assert (told['frames'], told['number_of_faces'], told['problems']) == (10, 1, [])
    assert len(list(tmp_path.iterdir())) == 4


def test_fine_tune(fer_nb, class_folder, tmp_path):
    "A network learns one's own classes, and its file predicts them."
    fer_nb('fine-tune', class_folder, '--out', tmp_path, '--set', 'epochs=1', '--quiet')
    model = next(tmp_path.rglob('*.int8.tflite'))
    photo = next((class_folder / 'happy').iterdir())
    found = json.loads(fer_nb('predict', photo, '--no-detect', '--model', model, '--json'))
    assert set(found['faces'][0]['probabilities']) == set(CLASSES)


@pytest.mark.parametrize('name', ['s', 'm'])
def test_export(fer_nb, tmp_path, name):
    "A shipped network opens, and gives LiteRT and ONNX files that answer as it does."
    told = fer_nb('export', ROOT / f'models/{name}.keras', '--data', 'synthetic', '--out', tmp_path, '--name', name)
    assert len(told.splitlines()) == 4
    assert (tmp_path / f'{name}.int8.tflite').exists()
