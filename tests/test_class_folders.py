"""Class folders as people pass them around: read as they are meant, or refused with the folder's name and a remedy."""
import os
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer_nb.audit import describe_dataset
from fer_nb.class_folders import load_class_folders
from fer_nb.core import FerError
from fer_nb.datasets import load_dataset
from fer_nb.folders import walk_folder

PNG = cv2.imencode('.png', np.zeros((2, 2), np.uint8))[1].tobytes()


def build(folder: Path, *names: str) -> Path:
    "A folder with these files: `a/` is an empty folder, `a/b.png*3` three images, `a -> b` a link."
    for name in names:
        name, _, target = name.partition(' -> ')
        name, _, times = name.partition('*')
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if target: path.symlink_to(folder / target)
        elif name.endswith('/'): path.mkdir(exist_ok=True)
        elif not times: path.write_bytes(PNG)
        else:
            for i in range(int(times)): path.with_stem(f'{path.stem}{i}').write_bytes(PNG)
    return folder


def read(folder, **options) -> tuple[dict, list]: # {(split, class): number}, warnings
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        faces = load_dataset(folder, **options)
    counts = Counter((str(s), faces.classes[k]) for s, k in zip(faces.split, faces.labels))
    return dict(counts), [str(o.message) for o in said if o.category is UserWarning]


TWO = {('train', 'angry'): 2, ('train', 'happy'): 1, ('test', 'angry'): 1, ('test', 'happy'): 1}
INSIDE = 'angry/1.png*2', 'happy/1.png'   # of a training split


def two(train: str, test: str, top: str = '') -> list[str]:
    "The files of two split folders."
    return [f'{top}{train}/angry/1.png*2', f'{top}{train}/happy/1.png', f'{top}{test}/angry/1.png',
            f'{top}{test}/happy/1.png']


@pytest.mark.parametrize('names', [
    two('train', 'test'), two('TRAIN', 'TEST'), two('Training/Training', 'Testing/Testing'),
    two('train_set', 'test_set'), two('Training Data', 'Test Data'), two('train2017', 'test2017'),
    two('images_train', 'images_test'), two('FER2013Train', 'FER2013Test'), two('train', 'holdout'),
    two('train/images', 'test/images'), two('train', 'test', 'archive/fer2013/'),
    [*two('train', 'test', 'archive/'), 'cover.png', 'archive/sheet.png'],
    [*two('train', 'test'), 'docs/a.png', 'images/b.png', 'images/c.png'],
    [*two('train', 'test', 'images/'), *two('train', 'test', 'images/images/')],
    [*two('train', 'test'), '__MACOSX/train/angry/._1.png', '.ipynb_checkpoints/angry/1.png', 'train/.hidden/1.png',
     'train/angry/Thumbs.db', '@eaDir/x/1.png'],
    ['angry/train/1.png*2', 'happy/train/1.png', 'angry/test/1.png', 'happy/test/1.png'],
    ['Angry/Train/1.png*2', 'Happy/Train/1.png', 'Angry/Test/1.png', 'Happy/Test/1.png', 'cover.png'],
    ['train/Anger/1.png*2', 'train/Joy/1.png', 'test/angry/1.png', 'test/happiness/1.png'],
    ['train/Angry Faces/1.png*2', 'train/happy_images/1.png', 'test/angry/1.png', 'test/Happy/1.png'],
    [*two('train', 'test', 'data/'), 'figures/plots/1.png', 'images/2.png'],
    ['train/0_angry/1.png*2', 'train/3_happy/1.png', 'test/0_angry/1.png', 'test/3_happy/1.png'],
    ['pool/angry/1.png*2', 'pool/happy/1.png', 'set/train -> pool', 'set/test/angry/1.png', 'set/test/happy/1.png'],
    [*two('train', 'test'), 'train/loop -> .'],
])
def test_read_as_meant(names, tmp_path):
    build(tmp_path, *names)
    assert read(tmp_path / 'set' if 'set/train -> pool' in names else tmp_path)[0] == TWO


@pytest.mark.parametrize('name, split', [
    ('dev', 'val'), ('eval', 'val'), ('validation_data', 'val'), ('Valid', 'val'), ('val_set', 'val'),
    ('PrivateTest', 'PrivateTest'), ('public_test', 'PublicTest'),
])
def test_split_names(name, split, tmp_path):
    found, _ = read(build(tmp_path, *two('train', name)))
    assert found == {(o.replace('test', split), k): n for (o, k), n in TWO.items()}


def test_eval_is_the_test_beside_a_validation_split(tmp_path):
    found, _ = read(build(tmp_path, *two('train', 'dev'), *two('train', 'eval')))
    assert {split for split, _ in found} == {'train', 'val', 'test'}


REFUSED = {
    'numbers 0 to 6': ([f'train/{i}/1.png' for i in range(7)], ['0, 1, 2', '--map 0=angry', 'FER2013']),
    'RAF-DB': ([f'DATASET/{s}/{i}/1.png' for s in ('train', 'test') for i in range(1, 8)],
               ['RAF-DB: --map 1=surprise --map 2=fear']),
    'AffectNet': ([f'train/{i}/1.png' for i in range(8)], ['AffectNet: --map 0=neutral --map 1=happy', 'CK+']),
    'many numbers': ([f'{i}/1.png' for i in (3, 12)], ['3, 12', '--map 3=NAME']),
    'a table instead of folders': (['Image/aligned/train_1.png', 'Image/original/train_1.png', 'labels.txt'],
                                   ['a folder for each class', 'Image/aligned, Image/original']),
    'YOLO': (['train/images/1.png', 'train/labels/1.txt', 'valid/images/1.png'], ['train/images, valid/images']),
    'no labels for the test': (['train/happy/1.png', 'train/sad/1.png', 'test/1.png'], ['test/', 'or move it away']),
    'KDEF': ([f'KDEF/{o}/1.png' for o in ('AF01', 'AF02', 'AM01', 'AM02')], ['AF01, AF02', '--subjects outside']),
    'a telephone': (['100APPLE/1.png', '101APPLE/2.png'], ['100APPLE']),
    'AffectNet by classes': ([f'{s}_class/class00{i}/1.png' for s in ('train', 'val') for i in (1, 2)], ['class001']),
    'one folder': (['faces/1.png*3'], ['class folders']),
    'one folder of an unknown name': (['selfies/1.png*3'], ['selfies']),
    'no folder': (['1.png*3'], ['class folders']),
    'people around': (['ann/happy/1.png', 'ann/sad/1.png', 'ben/happy/1.png'], ['ann, ben', '--subjects outside']),
    'CK+ as it is downloaded': ([f'S00{i}/00{k}/1.png' for i in (5, 6) for k in (1, 2)], ['S005', '--subjects']),
    'two datasets': (['ck/CK+48/happy/1.png', 'ck/CK+48/sad/1.png', 'mine/faces/happy/1.png'], ['ck, mine']),
    'two datasets with splits': ([*two('train', 'test', 'fer/'), *two('train', 'test', 'ck/')], ['load it alone']),
    'a split without classes': (['train/1.png', 'test/1.png'], ['test/', 'no class folders']),
    'a class like a split': (['test/1.png', 'happy/1.png', 'sad/1.png'], ['test/', '--map test=']),
    'a class like a split, deeper': (['train/happy/1.png', 'train/sad/1.png', 'train/test/1.png'],
                                     ['train/ has test', '--map']),
    'classes beside a split': (['train/happy/1.png', 'train/sad/1.png', 'happy/1.png'], ['happy/']),
    'an unknown split': ([*two('train', 'test'), 'unseen/happy/1.png'], ['unseen/', '--split-from']),
    'two validation splits': ([*two('train', 'val'), 'valid/happy/1.png'], ['val, valid']),
    'two spellings': (['angry/1.png', 'Anger/1.png', 'sad/1.png'], ['angry', 'Anger', '--map Anger=angry']),
    'a copy of a folder': (['sad/1.png', 'sad - Copy/2.png', 'happy/1.png'], ['sad, sad - Copy', "'sad - Copy=sad'"]),
    'a second folder': (['bored/1.png', 'bored2/2.png', 'happy/1.png'], ['bored, bored2', '--map bored2=bored']),
    'one name in two encodings': (['m\u00fcde/1.png', 'mu\u0308de/1.png', 'sad/1.png'], ['different folders']),
    'a name of a column': (['face/1.png', 'sad/1.png'], ["'face' is taken"]),
    'a name that cannot be shown': (['\x1b[31mred/1.png', 'sad/1.png'], ['cannot be shown']),
    'a very long name': ([f'{200 * "x"}/1.png', 'sad/1.png'], ['200 characters']),
    'two cases': (['train/angry/1.png', 'train/Angry/1.png'], ['--map Angry=angry']),
    'a class only in the test split': ([*two('train', 'test'), 'test/hapy/1.png'], ['test/hapy/', '--map hapy=']),
    'splits in some classes': (['angry/train/1.png', 'angry/test/1.png', 'sad/1.png'], ['sad/', 'angry']),
    'a class in a class': (['happy/sad/1.png', 'happy/1.png', 'sad/1.png'], ['happy/ has']),
    'another split in a class': ([*two('train', 'test'), 'train/happy/test/1.png'],
                                 ['train/ is the split train', 'named like another one: test']),
    'splits of an unknown language': ([f'{o}/{k}/1.png' for o in ('essai', 'entrainement') for k in ('joie', 'peur')],
                                      ['--split-from 1 (upper: splits)']),
    'posed and not': ([f'all/{o}/{k}/1.png' for o in ('posed', 'free') for k in ('sad', 'happy')], ['--split-from 2']),
    'splits that disagree': (['train/test/happy/1.png', 'train/test/sad/1.png'], ['train/test/']),
}


@pytest.mark.parametrize('case', REFUSED)
def test_refused(case, tmp_path):
    names, words = REFUSED[case]
    with pytest.raises(FerError) as error: read(build(tmp_path, *names))
    assert all(o in str(error.value) for o in [tmp_path.name, *words]), str(error.value)


OVERRULED = {
    'numbers': (['1/a.png', '2/b.png'], dict(mapping={'1': 'surprise', '2': 'fear'}),
                {('all', 'surprise'): 1, ('all', 'fear'): 1}),
    'years': (['2019/a.png', '2020/b.png'], dict(mapping={'2019': '2019', '2020': '2020'}),
              {('all', '2019'): 1, ('all', '2020'): 1}),
    'merge': (['angry/1.png', 'Anger/1.png', 'sad/1.png'], dict(mapping={'Anger': 'angry'}),
              {('all', 'angry'): 2, ('all', 'sad'): 1}),
    'drop': (['angry/1.png', 'sad/1.png', 'odd/1.png'], dict(mapping={'odd': None}),
             {('all', 'angry'): 1, ('all', 'sad'): 1}),
    'a class like a split': (['train/1.png', 'plane/1.png'], dict(mapping={'train': 'railway'}),
                             {('all', 'railway'): 1, ('all', 'plane'): 1}),
    'no splits': (['train/1.png', 'plane/1.png'], dict(split_from='none'), {('all', 'train'): 1, ('all', 'plane'): 1}),
    'a neutral name': (['images/1.png', 'sad/1.png'], dict(mapping={'images': 'images'}),
                       {('all', 'images'): 1, ('all', 'sad'): 1}),
    'folds': (['fold1/sad/1.png', 'fold2/sad/1.png', 'fold2/happy/1.png'], dict(split_from=1),
              {('fold1', 'sad'): 1, ('fold2', 'sad'): 1, ('fold2', 'happy'): 1}),
    'the second level': (['sad/a/1.png', 'happy/a/1.png', 'sad/test/1.png'], dict(split_from='2'),
                         {('a', 'sad'): 1, ('a', 'happy'): 1, ('test', 'sad'): 1}),
    'people around': (['ann/happy/1.png', 'ben/sad/1.png', 'train.txt'], dict(subjects='outside'),
                      {('all', 'happy'): 1, ('all', 'sad'): 1}),
}


@pytest.mark.parametrize('case', OVERRULED)
def test_overruled(case, tmp_path):
    names, options, expected = OVERRULED[case]
    assert read(build(tmp_path, *names), **options)[0] == expected


def test_splits_of_a_table(tmp_path):
    "A table says of each file what split it is in; other files are left out, with a warning."
    build(tmp_path / 'set', 'angry/1.png', 'angry/2.png', 'sad/3.png', 'sad/4.png')
    (tmp_path / 'splits.csv').write_text('file,split\nangry/1.png,train\nangry/2.png,Testing\n3.png,train\n')
    found, said = read(tmp_path / 'set', split_from=tmp_path / 'splits.csv')
    assert found == {('train', 'angry'): 1, ('test', 'angry'): 1, ('train', 'sad'): 1}
    assert 'sad/4.png: its split is not in splits.csv' in said[0]
    with pytest.raises(FerError, match='level 4'): read(tmp_path / 'set', split_from=4)
    with pytest.raises(FileNotFoundError): read(tmp_path / 'set', split_from='nowhere.csv')


def raf_db(folder: Path, pattern: str) -> list[str]: # their names
    "Seven images named as in RAF-DB, the last one for testing."
    names = [f'{"test" if i == 7 else "train"}_{i:05}' for i in range(1, 8)]
    about = [dict(split=name.partition('_')[0], number=i, name=name) for i, name in enumerate(names, 1)]
    build(folder, *(pattern.format(**o) for o in about))
    return names


def test_raf_db_in_numbered_folders(tmp_path):
    "The names of the images tell that it is RAF-DB, and so what the numbers mean."
    raf_db(tmp_path, 'DATASET/{split}/{number}/{name}_aligned.jpg')
    build(tmp_path, *(f'DATASET/test/{i}/test_{i:05}_aligned.jpg' for i in range(1, 7)))
    build(tmp_path, 'DATASET/train/7/train_00099_aligned.jpg')
    expected = {'surprise', 'fear', 'disgust', 'happy', 'sad', 'angry', 'neutral'}
    found, _ = read(tmp_path)
    assert found == {(split, name): 1 for split in ('train', 'test') for name in expected}
    with warnings.catch_warnings(action='ignore'): faces = load_dataset(tmp_path)
    happy = faces.names[faces.labels == faces.classes.index('happy')]
    assert {name.split('/')[2] for name in happy} == {'4'}


@pytest.mark.parametrize('pattern', ['Image/aligned/{name}_aligned.jpg', 'Image/original/{name}.jpg', '{name}.jpg'])
def test_raf_db_with_its_list(pattern, tmp_path):
    names = raf_db(tmp_path, pattern)
    (tmp_path / 'list_patition_label.txt').write_text('\n'.join(f'{o}.jpg {i}' for i, o in enumerate(names, 1)))
    with warnings.catch_warnings(action='ignore'): faces = load_dataset(tmp_path)
    found, said = read(tmp_path)
    assert faces.edition == 'RAF-DB' and found[('test', 'neutral')] == 1 and found[('train', 'surprise')] == 1
    assert len(found) == 7 and not [o for o in said if 'listed' in o]


@pytest.mark.parametrize('names, words', [
    (['angry/1.png', 'sad/1.png', 'docs/1.png'], ['docs/', '--map docs=docs']),
    (['happy/1.png', 'happy/2.png'], ['there is one class only']),
    (['angry/1.png', 'sad/1.png', 'all/angry/1.png'], ['all/', 'a second copy']),
    ([*two('train', 'test'), 'images/1.png'], ['images/ is left out']),
    (['train/angry/1.png', 'train/sad/1.png', 'test/sad/1.png'], ['test has no folder with images for angry']),
    (['angry/1.png', 'sad/1.png', 'fear/'], ['fear/: an empty folder']),
    (['angry/1.png', 'sad/1.png', 'fear -> nowhere'], ['fear: a link that leads nowhere']),
    (['angry/1.png', 'sad/1.png', 'sad/back -> sad'], ['sad/back/: a link to a folder that holds it']),
])
def test_said(names, words, tmp_path):
    "What is left out is said, by the folder's name, and listed."
    said = ' '.join(read(build(tmp_path, *names))[1])
    assert all(o in said for o in words), said


def test_described(tmp_path):
    double = two('Training/Training', 'Testing/Testing', 'archive/')
    build(tmp_path, *double, 'archive/docs/a.png', 'cover.png', '.DS_Store')
    (tmp_path / 'readme.md').write_text('about')
    with warnings.catch_warnings(action='ignore'): faces = load_dataset(tmp_path)
    text = str(describe_dataset(faces))
    for words in ('archive/ is passed over', 'archive/Training/Training/ is the split train',
                  'Testing/ is the split test', 'archive/docs/ is left out',
                  '1  not an image by its name, such as readme.md', 'such as .DS_Store'):
        assert words in text, text


def test_a_zip_is_read_like_a_folder(tmp_path):
    folder = build(tmp_path / 'set', *two('Training/Training', 'Testing/Testing', 'archive/'), 'archive/docs/a.png')
    with zipfile.ZipFile(tmp_path / 'set.zip', 'w') as z:
        for path in sorted(folder.rglob('*.*')): z.write(path, path.relative_to(folder).as_posix())
        z.writestr('__MACOSX/archive/._a.png', b'?')
    with zipfile.ZipFile(tmp_path / 'windows.zip', 'w') as z:
        for name in two('train', 'test'):
            for i in range(int(name[-1]) if '*' in name else 1):
                entry = zipfile.ZipInfo('x')
                entry.filename = name.partition('*')[0].replace('1.png', f'{i}.png').replace('/', '\\')
                z.writestr(entry, PNG)
    assert read(folder)[0] == read(tmp_path / 'set.zip')[0] == read(tmp_path / 'windows.zip')[0] == TWO


@pytest.mark.parametrize('names, edition', [
    (['jaffe/KA.AN1.39.png', 'jaffe/KA.HA1.29.png', 'cover.png'], 'JAFFE'),
    (['train/angry/KA.AN1.39.tiff', 'train/happy/KA.HA1.29.tiff', 'test/happy/KA.HA2.30.tiff'], 'class folders'),
    (['angry/KA.AN1.39.tiff', 'angry/im1.png', 'happy/KA.HA1.29.tiff'], 'class folders'),
])
def test_jaffe_in_folders(names, edition, tmp_path):
    "JAFFE sorted into splits keeps them, and JAFFE among other images does not swallow these."
    build(tmp_path, *(o.replace('.png', '.tiff') if 'KA' in o else o for o in names))
    tiff = cv2.imencode('.tiff', np.zeros((9, 9), np.uint8))[1].tobytes()
    for path in tmp_path.rglob('*.tiff'): path.write_bytes(tiff)
    with warnings.catch_warnings(action='ignore'): faces = load_dataset(tmp_path)
    assert faces.edition == edition and len(faces) == sum('KA' in o or edition != 'JAFFE' for o in names)


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='root may read everything')
def test_a_folder_without_permission_is_said(tmp_path):
    build(tmp_path, 'angry/1.png', 'sad/1.png', 'fear/1.png')
    (tmp_path / 'fear').chmod(0)
    try: assert 'fear/: cannot be read' in ' '.join(read(tmp_path)[1])
    finally: (tmp_path / 'fear').chmod(0o700)


def test_very_deep_folders_take_no_time():
    from fer_nb.folder_layout import read_layout

    names = ['/'.join(['a'] * 30_000) + '/1.png', 'sad/1.png', 'happy/1.png']
    layout = read_layout(names)
    assert list(layout.place) == names[1:] and 'folders deep' in layout.skipped[names[0]]


# --- in the shell


@pytest.fixture
def call(capsys):
    "A command without a process of its own: exit code, stdout, stderr."
    from fer_nb.cli import main

    def called(*words):
        code = main(words)
        return code, *capsys.readouterr()

    return called


def test_describe_tells_how_the_tree_was_read(call, tmp_path):
    build(tmp_path, *two('Training/Training', 'Testing/Testing'), 'docs/a.png', '.DS_Store')
    code, out, err = call('describe', tmp_path)
    assert code == 0 and f'warning: {tmp_path}: docs/ is left out' in err and 'UserWarning' not in err
    assert 'Training/Training/ is the split train' in out and 'such as .DS_Store' in out
    code, out, err = call('describe', tmp_path, '--map', 'happy=', '--split-from', 'none', '--json')
    assert (code, out) == (2, '') and 'Testing' in err


def test_describe_refuses_and_is_overruled(call, tmp_path):
    build(tmp_path, '1/a.png', '2/b.png')
    code, out, err = call('describe', tmp_path)
    assert (code, out) == (2, '') and '--map 1=surprise --map 2=fear' in err
    code, out, err = call('describe', tmp_path, '--map', '1=surprise', '--map', '2=fear')
    assert code == 0 and '1 is surprise, 2 is fear' in out
    code, out, err = call('describe', tmp_path, '--map', '3=sad')
    assert (code, out) == (2, '') and 'no class 3; there are 1, 2' in err


def test_evaluate_maps_the_classes_of_the_data(call, faces, tmp_path):
    "Classes of the data are called as the model's; a class that the model does not know is named."
    for i, (image, k) in enumerate(zip(faces.images[:40], faces.labels)):
        folder = tmp_path / {'happy': 'froh', 'sad': 'traurig'}.get(faces.classes[k], faces.classes[k])
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f'{i}.png'), image)
    options = 'evaluate', '--data', tmp_path, '--map', 'froh=happy'
    code, out, err = call(*options)
    assert code == 2 and 'does not know traurig' in err and '--map traurig=CLASS' in err
    code, out, err = call(*options, '--map', 'traurig=')
    assert code == 0 and f" {40 - int((faces.labels[:40] == faces.classes.index('sad')).sum())}  " in out


# --- whatever the layout, it is read as it was built, or refused

SPELLINGS = dict(
    train=['train', 'Train', 'TRAINING', 'train_set', 'Train Data', 'train-images'],
    val=['val', 'Valid', 'validation', 'dev', 'validation_data', 'VAL2'], test=['test', 'Testing', 'test set', 'TEST'],
)
CLASSES = ['angry', 'Happy', 'sadness', 'bored', 'Wink left', '笑顔']
MEANT = dict(zip(CLASSES, ['angry', 'happy', 'sad', 'bored', 'wink left', '笑顔']))
JUNK = ['.DS_Store', 'Thumbs.db', '__MACOSX/x/._1.png', '.ipynb_checkpoints/angry/1.png', 'readme.md', 'docs/page.png',
        'cover.png', 'images/a.png', 'empty/']


@st.composite
def layouts(draw) -> tuple[list[str], dict]: # files; {(split, class): number}
    "A tree of class folders, with what people have beside them."
    splits = draw(st.lists(st.sampled_from(list(SPELLINGS)), max_size=3, unique=True))
    classes = draw(st.lists(st.sampled_from(CLASSES), min_size=2, max_size=4, unique=True))
    top = draw(st.sampled_from(['', 'archive/', 'data set/fer/', 'images/']))
    below, repeated, linked = (draw(st.booleans()) for _ in range(3))
    files, counts = [], {}
    for split in splits or ['all']:
        folder = draw(st.sampled_from(SPELLINGS[split])) if splits else ''
        if repeated and splits and not below: folder = f'{folder}/{folder}'
        for name in classes:
            n = draw(st.integers(1, 2))
            place = '/'.join(o for o in ((name, folder) if below else (folder, name)) if o)
            if linked and not counts: files += [f'elsewhere/p/1.png*{n}', f'here/{top}{place} -> elsewhere/p']
            else: files.append(f'here/{top}{place}/1.png*{n}')
            counts[split, MEANT[name]] = n
    junk = draw(st.lists(st.sampled_from(JUNK), max_size=3, unique=True))
    where = draw(st.sampled_from(['', top]))
    return files + [f'here/{where}{o}' for o in junk], counts


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(layouts())
def test_whatever_is_built_is_read_or_refused(tmp_path_factory, layout):
    files, counts = layout
    folder = build(tmp_path_factory.mktemp('any'), *files)
    try: found, _ = read(folder / 'here')
    except FerError as e:
        assert any(f'{part}' in str(e) for o in files for part in o.split(' -> ')[0].split('/')[1:-1]), (str(e), files)
    else: assert found == counts, files


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(layouts())
def test_plain_layouts_are_not_refused(tmp_path_factory, layout):
    "What has nothing unusual beside it is read, and `describe` counts it as it was built."
    files, counts = layout
    plain = [o for o in files if not o.startswith(tuple(f'here/{j.split("/")[0]}' for j in JUNK if 'images' not in j))]
    folder = build(tmp_path_factory.mktemp('any'), *plain)
    with warnings.catch_warnings(action='ignore'): summary = describe_dataset(load_dataset(folder / 'here'))
    assert {(s, k): n for s, o in summary.counts.items() for k, n in o.items()} == counts


def test_walk_counts_every_file_once_or_says_why(tmp_path):
    build(tmp_path, 'a/1.png', 'a/b/2.png', 'c -> a', 'd -> nowhere', 'a/up -> .', '.x/3.png')
    found = walk_folder(tmp_path)
    assert found.files == ['a/1.png', 'a/b/2.png', 'c/1.png', 'c/b/2.png']
    assert set(found.skipped) == {'d', 'a/up/', 'c/up/', '.x'}


def test_load_class_folders_takes_no_file(tmp_path):
    (tmp_path / 'a.txt').write_text('x')
    with pytest.raises(FerError, match='neither a folder nor a zip'): load_class_folders(tmp_path / 'a.txt')
