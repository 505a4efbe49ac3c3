"""Classes of your own: the model file is like any other, made without TensorFlow; a page may send anything."""
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_nb.class_examples import Collection, add_example, load_zip, name_errors, to_zip
from fer_nb.class_folders import load_class_folders
from fer_nb.classes_panel import ClassesPanel, _receive
from fer_nb.core import FerError
from fer_nb.model_files import read_model
from fer_nb.recognition import Recognizer
from fer_nb.synthetic import synthetic_faces, synthetic_scene

MAKE = """
import sys
sys.modules['tensorflow'] = sys.modules['keras'] = None  # an import of them fails
from pathlib import Path
from fer_nb.classes_panel import ClassesPanel
from fer_nb.recognition import Recognizer
panel = ClassesPanel(Recognizer('s', 'haar'))
panel.load(sys.argv[1])
print(panel.train().text)
panel.save(sys.argv[2])
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Class folders: five faces of each of three classes."
    folder, drawn = tmp_path_factory.mktemp('own'), synthetic_faces(70, seed=8)
    for name in ('happy', 'neutral', 'surprise'):
        (folder / f'my {name}').mkdir()
        for i, face in enumerate(drawn.images[drawn.labels == drawn.classes.index(name)][:5]):
            cv2.imwrite(str(folder / f'my {name}' / f'{i}.png'), face)
    return folder


@pytest.fixture(scope='module')
def made(folder, tmp_path_factory):
    "What a process saved that cannot import TensorFlow or Keras: a model and examples; what it said."
    out = tmp_path_factory.mktemp('saved')
    done = subprocess.run([sys.executable, '-c', MAKE, folder, out], capture_output=True, text=True, check=True)
    return out / 'own-classes.tflite', out / 'own-classes.zip', done.stdout


def test_made_without_tensorflow(made):
    model, examples, said = made
    assert '95% interval' in said and 'from 15' in said, said
    recognizer = Recognizer(str(model), 'haar')
    assert set(recognizer.classes) == {'my happy', 'my neutral', 'my surprise'}
    about, content = read_model(model)
    assert about['examples'] == dict.fromkeys(about['classes'], 5)
    assert about['estimate']['takes'] == 15 and about['prior'] == pytest.approx([1 / 3] * 3, abs=1e-6)
    faces = load_class_folders(examples)
    maps = recognizer.classifier.feature_maps(faces.images)
    _, shipped = read_model(Recognizer('s', 'haar').classifier.path)
    assert np.array_equal(maps, Recognizer('s', 'haar').classifier.feature_maps(faces.images))
    assert not any(face.tobytes()[200:260] in content for face in faces.images), 'an example is in the model file'
    assert len(content) < len(shipped) + 20_000


def test_file_for_the_command(made, tmp_path):
    cv2.imwrite(str(tmp_path / 'two.png'), synthetic_scene(2, seed=1)[0][..., ::-1])
    command = [sys.executable, '-m', 'fer_nb', 'predict', tmp_path / 'two.png', '--model', made[0], '--json']
    done = subprocess.run([*command, '--detector', 'haar'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'my happy' in done.stdout and json.loads(done.stdout)


def test_examples_are_class_folders(made, folder):
    faces = load_class_folders(made[1])
    assert (len(faces), len(faces.skipped)) == (15, 0)
    assert set(faces.classes) == {o.name for o in folder.iterdir()}


@pytest.fixture(scope='module')
def recognizer(): return Recognizer('s', 'haar')


names = st.lists(st.text(min_size=1, max_size=60).map(str.strip), min_size=2, max_size=4)


@settings(max_examples=60, deadline=None)
@given(names)
def test_any_good_name_goes_and_comes_back(recognizer, wanted):
    if any(name_errors(wanted)): return
    mine = Collection(recognizer)
    while len(mine.classes) < len(wanted): mine.add_class()
    for own, name in zip(mine.classes, wanted): own.name = name
    for own, face in zip(mine.classes, synthetic_faces(4, seed=3).images):
        assert add_example(mine, own, cv2.imencode('.png', face)[1].tobytes()).usable
    again = Collection(recognizer)
    assert load_zip(again, to_zip(mine)) == len(wanted)
    assert {o.name for o in again.classes if o.items} == set(wanted)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(['e1', 'e2', 'v']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6,
)
kinds = 'hello add rename remove begin part cancel frame train save clear'.split()
fields = 'id name size to folder zip try what view number time take'.split()
messages = anything | st.builds(
    lambda kind, more: more | {'kind': kind},
    st.sampled_from(kinds), st.dictionaries(st.sampled_from(fields), anything),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(messages, st.lists(st.binary(max_size=40), max_size=2)), max_size=8))
def test_whatever_a_page_sends(recognizer, sent):
    panel = ClassesPanel(recognizer)
    for message, buffers in sent: _receive(panel, message, buffers)
    assert len(panel.collection.classes) <= 10
    panel.view.close()


def test_too_much_is_refused(recognizer, tmp_path):
    panel = ClassesPanel(recognizer, max_classes=2, max_examples=3)
    panel.collection.classes[0].name = 'a'
    for face in synthetic_faces(7, seed=1).images: panel.add('a', cv2.imencode('.png', face)[1].tobytes())
    assert len(panel.collection.classes[0].examples) == 3
    with pytest.raises(FerError, match='needs 2 examples'): panel.train()
    with pytest.raises(FerError, match='at most 2 classes'):
        panel.collection.classes[1].name = 'b'
        panel.add('c', b'')
    with pytest.raises(FerError, match='larger than'): load_zip(panel.collection, bytes(50_000_001))
    with pytest.raises(FerError): panel.load(tmp_path)
