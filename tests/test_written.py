"""What is written says which face is meant, and what made it: pictures, tables, JSON, videos, messages."""
import contextlib
import csv
import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_nb.cli import main
from fer_nb.images import read_image


@pytest.fixture(scope='module')
def group(photos) -> np.ndarray:
    "Two portraits beside one another: the smaller face is the left one."
    right, left = (read_image(o) for o in photos)
    image = np.full((600, 1024, 3), 90, np.uint8)
    image[:512, :512], image[:, 512:] = left, right
    return image


@pytest.fixture
def folder(tmp_path, photos, group, monkeypatch):
    "The current folder, with an image of one and one of four people, and no file of YuNet."
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('FER_NB_YUNET', raising=False)
    monkeypatch.setenv('FER_NB_CACHE', str(tmp_path / 'cache'))
    Image.fromarray(group).save('two.png')
    heads = read_image(photos[1])[10:290, 60:340], read_image(photos[0])[40:440, 60:460]
    Image.fromarray(np.hstack([cv2.resize(o, (256, 256)) for o in heads * 2])).save('four.png')
    return tmp_path


def fer_nb(*words) -> tuple[int, str, str]:
    "The command in this process: exit code, stdout, stderr."
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err): code = main([str(o) for o in words])
    return code, out.getvalue(), err.getvalue()


def test_one_number_in_text_table_and_picture(folder):
    "From 1, from left to right; four people get a list beside the picture."
    code, out, _ = fer_nb('predict', 'four.png', 'two.png', '--csv', 'faces.csv', '--annotate', 'out')
    assert code == 0
    with open('faces.csv', newline='') as file: rows = list(csv.DictReader(file))
    four = [o for o in rows if o['source'] == 'four.png']
    assert [o['face'] for o in four] == ['1', '2', '3', '4']
    assert [int(o['x']) for o in four] == sorted(int(o['x']) for o in four)
    lines = [o.split() for o in out.splitlines()[1:]]
    assert [o[1] for o in lines] == ['1', '2', '3', '4', '1', '2']
    wide, plain = read_image('out/four.png').shape, read_image('four.png').shape
    assert wide[0] == plain[0] and wide[1] > plain[1]
    assert read_image('out/two.png').shape == read_image('two.png').shape


def test_everything_names_what_made_it(folder):
    "Model, version, detector, prior and threshold: in CSV, JSON and the annotated picture."
    from fer_nb import __version__

    words = 'predict', 'two.png', '--prior', 'balanced', '--min-confidence', '.55'
    assert fer_nb(*words, '--csv', 'faces.csv', '--annotate', 'out')[0] == 0
    with open('faces.csv', newline='') as file: [said] = {o['settings'] for o in csv.DictReader(file)}
    assert said.startswith(f'fer_nb {__version__}, model m ')
    assert said.endswith('detector haar, prior balanced, min 0.55')
    with Image.open('out/two.png') as picture: assert picture.text['Description'] == said
    made = json.loads(fer_nb(*words, '--json')[1])['settings']
    assert (made['detector'], made['prior'], made['min_confidence']) == ('haar', 'balanced', .55)
    crops = json.loads(fer_nb(*words, '--json', '--no-detect')[1])['settings']
    assert crops == made | dict(detector='none')


def test_the_better_detector_is_named_once(folder):
    "Where Haar runs because there is no file of YuNet, and nowhere else."
    known = 'fer_nb download-yunet'
    assert fer_nb('predict', 'two.png', 'four.png')[2].count(known) == 1
    for words in (['--detector', 'haar'], ['--no-detect']): assert known not in fer_nb('predict', 'two.png', *words)[2]
    assert known not in fer_nb('predict', 'two.png', '--resume')[2]  # refused before anything is searched


def test_a_wrong_yunet_file_is_no_traceback(folder, monkeypatch):
    "One line that names the variable, the file and the reason."
    monkeypatch.setenv('FER_NB_YUNET', 'two.png')
    code, out, err = fer_nb('predict', 'two.png')
    assert (code, out) == (2, '') and err.startswith('fer_nb predict: FER_NB_YUNET: two.png: not a YuNet detector')
    assert fer_nb('predict', 'two.png', '--detector', 'haar')[0] == 0


def test_a_cut_ends_all_faces(folder, photos):
    "Two people at the same place are two faces: in table, summary and timeline, which all say what made them."
    av = pytest.importorskip('av')
    from fer_nb.video_output import VideoWriter

    views = [cv2.resize(read_image(photos[1])[10:290, 60:340], (480, 480))]
    views += [cv2.resize(read_image(photos[0])[40:440, 60:460], (480, 480))]
    with VideoWriter('cut.mp4', (480, 480)) as video:
        for i in range(30): video.add(i / 15, views[i // 15])
    code, _, err = fer_nb('video', 'cut.mp4', '--out', 'out', '--quiet')
    assert code == 0, err
    told = json.loads((folder / 'out/cut.json').read_text())
    assert (told['scenes'], told['cuts'], [o['face'] for o in told['faces']]) == (2, [1.], [1, 2])
    with open('out/cut.csv', newline='') as file: rows = list(csv.DictReader(file))
    assert {o['face'] for o in rows if float(o['time']) < 1} == {'1'}
    assert {o['face'] for o in rows if float(o['time']) >= 1} == {'2'}
    said = rows[0]['settings']
    assert 'detector haar' in said and 'cuts True' in said and {o['settings'] for o in rows[1:]} == {''}
    with av.open('out/cut-faces.mp4') as video: assert video.metadata['comment'] == said
    with Image.open('out/cut.png') as figure: assert figure.text['Description'] == said
    assert told['settings']['cuts'] is True and told['settings']['model'] == 'm'
    assert fer_nb('video', 'cut.mp4', '--out', 'one', '--no-cuts', '--quiet')[0] == 0
    told = json.loads((folder / 'one/cut.json').read_text())
    assert (told['settings']['cuts'], told['cuts'], told['scenes'], len(told['faces'])) == (False, [], 1, 1)
