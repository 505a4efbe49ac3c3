"""Fine-tuning to one's own faces: from the files to the report, on a network of 1,000 weights."""
import tracemalloc
from dataclasses import replace

import cv2
import numpy as np
import pytest

from fer_nb.cross_validation import cross_dataset, fine_tuner, leave_one_subject_out, random_folds
from fer_nb.fine_tuning import _load_for_transfer, fine_tune, initial_network, load_faces, split_dataset, train_network
from fer_nb.labels import EXPRESSIONS
from fer_nb.synthetic import synthetic_faces

QUICK = {'epochs': 2, 'thaw': .5, 'progress': False}


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "The .keras file of a network with batch norm and a head for the seven expressions."
    import keras

    keras.utils.set_random_seed(0)
    L = keras.layers
    network = keras.Sequential([
        keras.Input((None, None, 1)), L.Rescaling(1 / 255), L.Conv2D(8, 3, strides=4), L.BatchNormalization(), L.ReLU(),
        L.Conv2D(8, 3, strides=2), L.ReLU(), L.GlobalAveragePooling2D(), L.Dense(7, name='expression'),
    ])
    network.save(path := tmp_path_factory.mktemp('tiny') / 'tiny.keras')
    return path


@pytest.fixture(scope='module')
def winks():
    "An eighth class beside the seven expressions; four people, 14 faces of each, no splits."
    faces = synthetic_faces(56, subjects=4, classes=(*EXPRESSIONS, 'wink'), seed=3)
    return replace(faces, split=np.full(len(faces), 'all'))


@pytest.fixture(scope='module')
def out(tmp_path_factory): return tmp_path_factory.mktemp('wink')


@pytest.fixture(scope='module')
def mine(winks, tiny, out):
    "What `fine_tune` makes of them."
    return fine_tune(winks, out, tiny, name='wink', kinds=('fp16',), **QUICK)


# --- the network to begin with


def test_new_head_keeps_what_was_known():
    "With an eighth class the logits of the seven are those of the shipped student."
    from fer_nb.evaluation import predict_logits
    from fer_nb.fine_tuning import shipped_keras_file

    images = synthetic_faces(14).images
    network, origin = initial_network('s', 'pretrained', (*EXPRESSIONS, 'wink'))
    before, *_ = _load_for_transfer(shipped_keras_file('s'))
    logits = predict_logits(before, images)
    np.testing.assert_allclose(
        predict_logits(network, images)[:, :7], logits['expression'] if isinstance(logits, dict) else logits, atol=1e-3
    )
    assert origin.startswith('s: ')


@pytest.mark.parametrize('backbone, weights, said', [
    ('xs', 'pretrained', "student 'xs' is not shipped"),
    ('resnet', 'pretrained', "backbone 'resnet' is neither"),
    ('resnet', None, 'resnet: only'),
    ('vgg16', 'text.keras', 'text.keras'),
    ('mobilenet', 'none.h5', 'none.h5'),
    ('color.keras', 'pretrained', r'takes \(None, 48, 48, 3\); gray faces'),
    ('headless.keras', 'pretrained', 'has no dense layer called `expression`'),
    ('text.keras', 'pretrained', 'text.keras: not a Keras model'),
    ('none.keras', 'pretrained', 'none.keras: no such model file'),
])
def test_unusable_beginnings(backbone, weights, said, tmp_path, monkeypatch):
    "One line that names what does not fit."
    import keras

    monkeypatch.chdir(tmp_path)
    (tmp_path / 'text.keras').write_text('no model')
    for name, channels, head in (('color', 3, 'expression'), ('headless', 1, 'another')):
        if backbone == f'{name}.keras':
            layers = [keras.layers.Flatten(), keras.layers.Dense(7, name=head)]
            keras.Sequential([keras.Input((48, 48, channels)), *layers]).save(backbone)
    with pytest.raises((ValueError, FileNotFoundError), match=said): initial_network(backbone, weights, ['a', 'b'])


# --- fine_tune


def test_files_and_classes(mine):
    assert (mine.classes[-1], set(mine.files), len(mine.history)) == ('wink', {'fp16', 'keras'}, 2)
    written = {o.name for o in mine.folder.iterdir() if o.suffix in ('.md', '.keras', '.tflite', '.json', '.csv')}
    assert written == {'MODEL_CARD.md', 'evaluation.json', 'history.csv', 'model.keras', 'config.json',
                       'wink.fp16.tflite', 'wink.keras'}
    assert (mine.report['split'], mine.report['disjoint_subjects']) == ('validation', True)


def test_nobody_is_on_both_sides(winks):
    sides = split_dataset(winks)
    train, val = (set(sides.subset(o).subjects) for o in ('train', 'val'))
    assert train and val and not train & val


def test_recognizer_gives_the_same_probabilities(mine):
    images = synthetic_faces(8, seed=77, classes=mine.classes).images
    recognize = mine.recognizer()
    assert recognize.classes == mine.classes
    told = [list(r.faces[0].probabilities.values()) for r in recognize.recognize_crops(images)]
    np.testing.assert_allclose(told, mine.probabilities(images), atol=.02)


def test_batch_norm_is_left_alone_and_layers_join_from_the_top(mine, tiny):
    "After two epochs the upper convolution has learnt, the lower one has not begun."
    before, *_ = _load_for_transfer(tiny)
    pairs = zip(before.layers, mine.model.layers[-len(before.layers):])
    layers = [(type(a).__name__, a.get_weights(), b.get_weights()) for a, b in pairs]
    for kind, old, new in layers:
        if kind == 'BatchNormalization':
            for a, b in zip(old, new): np.testing.assert_array_equal(a, b)
    (_, lower, lower_now), (_, upper, upper_now) = (o for o in layers if o[0] == 'Conv2D')
    np.testing.assert_allclose(lower_now[0], lower[0], rtol=1e-4)
    assert not np.allclose(upper_now[0], upper[0], rtol=1e-4)


def test_only_the_head_learns(winks, tiny, tmp_path):
    before, *_ = _load_for_transfer(tiny)
    network, *_ = train_network(split_dataset(winks), tmp_path, tiny, mode='head', epochs=1, progress=False)
    for a, b in zip(before.get_weights()[:-2], network.get_weights()[:-2]): np.testing.assert_array_equal(a, b)


def test_the_same_recipe_gives_the_same_network(mine, winks, tiny, tmp_path):
    "The new head's first weights included."
    network, history, *_ = train_network(split_dataset(winks), tmp_path, tiny, **QUICK)
    same = ('loss', 'val_loss', 'accuracy', 'val_accuracy')
    assert [[o[k] for k in same] for o in history] == [[o[k] for k in same] for o in mine.history]
    for a, b in zip(network.get_weights(), mine.model.get_weights()): np.testing.assert_array_equal(a, b)


def test_finished_run_is_only_reported(mine, winks, tiny, out):
    "The checkpoint is not written again."
    written = (out / 'checkpoint.npz').stat().st_mtime_ns
    again = fine_tune(winks, out, tiny, name='wink', kinds=('fp16',), **QUICK)
    assert again.report['accuracy'] == mine.report['accuracy']
    assert (out / 'checkpoint.npz').stat().st_mtime_ns == written


@pytest.mark.parametrize('rows, changes, said', [
    (56, {'epochs': 3}, r'another configuration \(epochs'),
    (40, {}, r'another configuration \(faces'),
    (56, {'epoch': 3}, 'no option epoch;'),
    (56, {'mode': 'half'}, "neither 'full' nor 'head'"),
    (56, {'weights': None, 'mode': 'head'}, "mode = 'head' needs pretrained weights"),
])
def test_another_experiment_in_the_same_folder_is_refused(mine, winks, tiny, out, rows, changes, said):
    with pytest.raises(ValueError, match=said): fine_tune(winks[:rows], out, tiny, **QUICK | changes)


# --- evaluation in folds, and across data sets


def test_people_left_out(winks, tiny, tmp_path):
    "Each person is judged once, by a network that learnt from the others; what is finished is not trained again."
    learn, seen = fine_tuner(tiny, mode='head', epochs=1), []

    def watched(faces, folder):
        seen.append(set(faces.subjects))
        return learn(faces, folder)

    watched.key = learn.key
    study = leave_one_subject_out(winks, tmp_path, folds=2, learn=watched, progress=False)
    assert (study.report['n'], len(study.folds), len(seen)) == (len(winks), 2, 2)
    assert not seen[0] & seen[1] and seen[0] | seen[1] == set(winks.subjects)
    again = leave_one_subject_out(winks, tmp_path, folds=2, learn=watched, progress=False)
    assert len(seen) == 2
    np.testing.assert_array_equal(again.probabilities, study.probabilities)


def test_random_split_has_everybody_on_both_sides(winks, tiny):
    seen = []

    def learn(faces, folder):
        seen.append(faces)
        return lambda images: np.full((len(images), 8), 1 / 8)

    study = random_folds(winks, folds=2, learn=learn, progress=False)
    assert (study.report['n'], len(seen)) == (len(winks), 2)
    assert all(o.subjects is None for o in seen)


def test_from_scratch(winks, tmp_path):
    "Random weights: everything learns at once, batch norm too."
    network, history, _, origin, recipe = train_network(split_dataset(winks), tmp_path, 'xs', None, epochs=1, progress=False)
    assert (origin, recipe.freeze_bn, recipe.thaw, len(history)) == ('none, random initialisation', False, 0., 1)
    means = [o.get_weights()[2] for o in network.layers if type(o).__name__ == 'BatchNormalization']
    assert means and all(np.abs(o).max() > 0 for o in means)


def test_train_on_one_set_test_on_another(winks, tiny, tmp_path):
    "Classes are merged, renamed and dropped on either side; every face of the other set is judged."
    others = synthetic_faces(35, seed=8)
    mood = dict.fromkeys(('angry', 'disgust', 'fear', 'sad'), 'bad') | dict(happy='good', surprise='good', wink=None)
    report = cross_dataset(winks, others, mood, tmp_path, backbone=tiny, mode='head', epochs=1, progress=False)
    assert (report['classes'], report['n'], report['left_out']) == (['bad', 'good', 'neutral'], 35, {})
    assert report['tested_on'] == others.edition
    with pytest.raises(ValueError, match='no class tired in either set'): cross_dataset(winks, others, {'tired': None})


def test_fine_tuning_beats_no_training(tmp_path):
    "The whole shipped student, judged on people whom it has not seen."
    from fer_nb.cross_validation import evaluate_dataset

    ours, others = (synthetic_faces(105, subjects=10, studio=True, seed=seed) for seed in (8, 9))
    ours = replace(ours, split=np.full(len(ours), 'all'))
    report = cross_dataset(ours, others, out=tmp_path, epochs=6, progress=False)
    assert report['accuracy'] > evaluate_dataset(others, 's')['accuracy'] + .1


def test_networks_are_compared_once(tiny, tmp_path, monkeypatch):
    "Results under the same protocol are read, not trained again; another protocol is another comparison."
    from fer_nb import transfer

    monkeypatch.setattr(transfer, 'CANDIDATES', {'tiny': {'backbone': tiny, 'mode': 'head'}})
    trained, file, faces = [], tmp_path / 'transfer.json', synthetic_faces(70)
    compared = transfer.compared
    monkeypatch.setattr(transfer, 'compared', lambda *a, **k: trained.append(a[2]) or compared(*a, **k))

    def compare(rows): return transfer.compare_networks(faces, file, rows=rows, epochs=1, work=tmp_path, progress=False)

    first = compare(35)
    assert (first['protocol']['training_rows'], first['results']['tiny']['n']) == (35, len(faces.deduplicated('val')))
    assert compare(35) == first and len(trained) == 1
    monkeypatch.setattr(transfer, 'compared', lambda *a, **k: {'n': 0})
    assert compare(28)['results'] == {'tiny': {'n': 0}}


# --- memory


def test_a_folder_is_read_one_file_at_a_time(tmp_path):
    "200 pictures of 480 x 480 are 46 MB; beside the faces that stay, a tenth of that is enough."
    images = synthetic_faces(10).images
    for i in range(200):
        path = tmp_path / ('asleep', 'awake')[i % 2] / f'{i}.jpg'
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), cv2.resize(images[i % 10], (480, 480)))
    tracemalloc.start()
    try:
        loaded = load_faces(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally: tracemalloc.stop()
    assert len(loaded) == 200
    assert peak - loaded.images.nbytes < 1e7
