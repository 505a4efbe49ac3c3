"""Signals, a kill and a full disk: what was written by the analysis of a video can be read, and is said."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas
import pytest
from waiting import until

from fer_nb.core import unfinished_parts
from fer_nb.images import read_image
from fer_nb.video_basics import panning_video
from fer_nb.video_input import read_video
from fer_nb.video_output import VideoWriter
from fer_nb.video_results import check_results

pytest.importorskip('resource')  # limits on the size of files

# a camera that pans over a face without end, in growing and fading light, so that the video does not become tiny
PROGRAM = """
import resource, sys
import cv2, numpy as np
from fer_nb.images import read_image
from fer_nb.recognition import Recognizer
from fer_nb.video_analysis import analyze_video

photo, folder, n, limit, *files = sys.argv[1:]
face = cv2.resize(read_image(photo)[40:440, 60:460], (160, 160), interpolation=cv2.INTER_AREA)
scene = cv2.copyMakeBorder(face, 0, 0, 60, 60, cv2.BORDER_REFLECT)

def pan():
    for i in range(int(n)):
        if i == 30: print('thirty', flush=True)
        x = round(30 + 30*np.sin(i/15))
        yield i/25, cv2.convertScaleAbs(scene[:, x:x + 220], alpha=.75 + .25*np.cos(i/9))

if int(limit): resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
paths = {kind: f'{folder}/{name}' for kind, name in (o.split('=') for o in files)}
analyze_video(pan(), Recognizer('s', detector='haar'), progress=False, **paths)
"""
Run = namedtuple('Run', 'code told names table video')


@pytest.fixture
def analyzed(tmp_path, photos):
    "Analyze in another process, which may get signals; its exit code, summary and files."

    def call(*files: str, signals: tuple = (), n: int = 10**9, limit: int = 0) -> Run:
        wanted = [*files, 'summary=a.json']
        command = [sys.executable, '-B', '-c', PROGRAM, str(photos[0]), str(tmp_path), str(n), str(limit), *wanted]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == 'thirty\n'
            for number in signals:
                process.send_signal(number)
                time.sleep(0.02)
            process.stdout.read()
        table, video = None, None
        if (tmp_path / 'a.csv').exists(): table = pandas.read_csv(tmp_path / 'a.csv')
        if (tmp_path / 'a.parquet').exists(): table = pandas.read_parquet(tmp_path / 'a.parquet')
        if (tmp_path / 'a.mp4').exists():
            with read_video(tmp_path / 'a.mp4') as reader: video = sum(1 for _ in reader)
            # a file that the limit cut off may say so
            assert limit or not reader.problems
        told = json.loads((tmp_path / 'a.json').read_text())
        return Run(process.returncode, told, sorted(o.name for o in tmp_path.iterdir()), table, video)

    return call


def test_ctrl_c_twice_leaves_whole_files(analyzed):
    run = analyzed('table=a.csv', 'video_out=a.mp4', 'timeline=a.png', signals=(signal.SIGINT, signal.SIGINT))
    assert (run.code, run.told['stopped'], run.told['problems']) == (0, True, [])
    assert run.names == ['a.csv', 'a.json', 'a.mp4', 'a.png']
    assert run.video == run.table.frame.max() + 1 == run.told['frames'] >= 30


def test_ctrl_c_finishes_a_parquet_file(analyzed):
    run = analyzed('table=a.parquet', signals=(signal.SIGINT,))
    assert (run.code, run.told['stopped'], run.names) == (0, True, ['a.json', 'a.parquet'])
    assert run.table.frame.max() + 1 == run.told['frames']


def test_a_full_disk_keeps_whole_lines_and_frames_and_says_so(analyzed):
    run = analyzed('table=a.csv', 'video_out=a.mp4', n=450, limit=40_000)
    assert (run.code, run.told['stopped'], run.told['frames']) == (0, False, 450)
    assert 0 < run.table.frame.max() < 449 and not run.table.drop(columns='settings').isna().any().any()
    assert 0 < run.video < 450
    assert run.names == ['a.csv', 'a.json', 'a.mp4']
    assert len(run.told['problems']) == 2
    assert all('File too large' in o for o in run.told['problems'])


LIMITED = """
import resource, sys
from pathlib import Path
from fer_nb.recognition import TrackedFace
from fer_nb.face_tables import CsvTable

face = TrackedFace((1, 2, 3, 4), .9, 'happy', .75, dict(happy=.75, sad=.25), None, 0, 12, .5)
for limit in range(500, 26_000, 500):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    table = CsvTable(path := Path(sys.argv[1], f'{limit}.csv'), ('happy', 'sad'))
    try:
        for _ in range(1000): table.add([face])
        table.close()
    except OSError:
        try: table.close()
        except OSError: pass
    else: sys.exit('nothing was refused')
"""


def test_a_table_has_no_half_line_wherever_the_disk_is_full(tmp_path, run):
    done = run('python', '-B', '-c', LIMITED, tmp_path)
    assert (done.returncode, done.stderr) == (0, '')
    written = sorted(tmp_path.iterdir())
    assert len(written) == 51
    for path in written:
        text = path.read_text()
        assert path.suffix == '.csv' and (not text or text.endswith('\n'))
        assert {line.count(',') for line in text.splitlines()} <= {12}


def test_a_full_disk_keeps_the_rows_of_a_parquet_file(analyzed):
    "There is no room for the end of a Parquet file; the rows before it are kept as CSV."
    run = analyzed('table=a.parquet', n=60, limit=4_000)
    assert (run.code, run.told['frames'], run.names) == (0, 60, ['a.json', 'a.parquet.csv'])
    [problem] = run.told['problems']
    assert 'what was written before is in' in problem and problem.endswith('a.parquet.csv')
    assert run.told['written']['table'].endswith('a.parquet.csv') and not run.told['complete']


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGHUP'])
def test_a_signal_that_ends_the_process_leaves_whole_files(name, analyzed):
    "It does, but not before all files are complete."
    number = getattr(signal, name)
    run = analyzed('table=a.csv', 'video_out=a.mp4', 'timeline=a.png', signals=(number, number))
    assert (run.code, run.told['stopped'], run.told['problems']) == (-number, True, [])
    assert run.names == ['a.csv', 'a.json', 'a.mp4', 'a.png']
    assert run.video == run.table.frame.max() + 1 == run.told['frames'] >= 30


@pytest.mark.parametrize('name', ['a.csv', 'a.parquet'])
def test_a_kill_loses_seconds_of_a_table(name, tmp_path, photos):
    "The rows are in a hidden CSV file, which is not removed by the next run."
    files = [f'table={name}', 'summary=a.json']
    command = [sys.executable, '-B', '-c', PROGRAM, str(photos[0]), str(tmp_path), str(10**9), '0', *files]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        rows = lambda: sum(path.read_text().count('\n') - 1 for path in tmp_path.iterdir())
        until(lambda: rows() > 30 or process.poll() is not None, 'nothing is written')
        process.kill()
    [part] = tmp_path.iterdir()
    assert part.suffix == '.csv' and list(unfinished_parts(tmp_path / (name + '.csv' * (name != 'a.csv')))) == [part]
    assert pandas.read_csv(part).frame.max() >= 30
    os.utime(part, (0, 0))
    check_results(0, {'table': tmp_path / name})
    assert part.exists()


@pytest.fixture(scope='module')
def clip(photos, tmp_path_factory):
    "A second of a face."
    path = tmp_path_factory.mktemp('clip') / 'clip.mp4'
    frames = panning_video(read_image(photos[0]), 12, size=(256, 300), fps=12, view=0.9)
    with VideoWriter(path, (256, 300)) as video:
        for t, rgb in frames: video.add(t, rgb)
    return path


NAMES = [
    'cost_$5_vs_$6.mp4', 'clip#1.mp4', 'clip#2.mp4', 'a/clip.mp4', 'b/clip.mp4', '%s_x_?.mp4', 'two\nlines.mp4',
    os.fsdecode(b'caf\xe9.mp4'), 'x' * 250 + '.mp4', '=1+1.mp4', '-v.mp4', 'CLIP.MP4',
]


def test_no_name_costs_a_result(clip, run, tmp_path):
    "Every video of a folder gets its four results, and a video that is broken costs itself."
    videos, out = tmp_path / 'videos', tmp_path / 'out'
    for name in NAMES:
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, videos / name)
    (videos / 'broken.mp4').write_bytes(clip.read_bytes()[:500])
    (videos / 'again').symlink_to(videos / 'a')
    done = run('fer_nb', 'video', videos, '--out', out, '--quiet', '--detector', 'haar', env={'LANG': 'C'})
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f'done: {len(NAMES)}, skipped: 0, failed: 1')
    told = [json.loads(path.read_text()) for path in out.glob('*.json')]
    assert {o['source'] for o in told} == {str(videos / name) for name in NAMES}
    assert all(o['complete'] and not o['problems'] for o in told)
    paths = [path for o in told for path in o['written'].values()]
    assert len(set(map(str.casefold, paths))) == len(paths) == len(list(out.iterdir())) == 4 * len(NAMES)


@pytest.mark.parametrize('held, ready, kept', [
    ('3.csv', '2.json', 0), ('3.json', '3.png', 3),
], ids=['begun', 'nearly done'])
def test_a_killed_batch_goes_on(held, ready, kept, clip, run, tmp_path):
    "What is complete is not done again, and nothing is replaced without being asked."
    for i in range(6): shutil.copy(clip, tmp_path / f'{i}.mp4')
    words = ['video', '.', '--out', 'out', '--quiet', '--detector', 'haar']
    command, out = [Path(sys.executable).with_name('fer_nb'), *words], tmp_path / 'out'
    out.mkdir()
    os.mkfifo(out / held)  # without a reader, so that the fourth video goes no further
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(lambda: (out / ready).exists() or process.poll() is not None, 'it does not come that far')
        process.kill()
    (out / held).unlink()
    times = {path: path.stat().st_mtime_ns for path in out.glob('[0-2]*')}
    assert len(times) == 12 and len(list(out.glob('3*'))) == kept
    (out / '.3.0123abcd.part.json').write_text('{"complete": true')  # a kill while the summary is written leaves this
    refused = run('fer_nb', *words, cwd=tmp_path)
    assert refused.returncode == 2 and 'exists already; --overwrite replaces it, --resume' in refused.stderr
    if kept:  # results without a summary may be of something else
        refused = run('fer_nb', *words, '--resume', cwd=tmp_path)
        assert refused.returncode == 2 and 'exists already; --overwrite replaces it, --resume' in refused.stderr
    again = run('fer_nb', *words, '--resume', *['--overwrite'] * bool(kept), cwd=tmp_path)
    assert (again.returncode, again.stderr.splitlines()[-1]) == (0, 'done: 3, skipped: 3, failed: 0'), again.stderr
    assert '.3.0123abcd.part.json: left by a run that was killed, or is still at work' in again.stderr
    assert all(path.stat().st_mtime_ns == at for path, at in times.items())
    assert len(list(out.glob('[0-9]*'))) == 24


def test_sigterm_ends_a_batch_in_order(clip, tmp_path):
    "There is more to say than a pipe holds, so that it cannot come to its end before."
    for i in range(100): shutil.copy(clip, tmp_path / f'{i}.mp4')
    words = [Path(sys.executable).with_name('fer_nb'), 'video', '.', '--out', 'out', '--quiet', '--detector', 'haar']
    words += ['--json']
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    with subprocess.Popen(words, cwd=tmp_path, **pipes) as process:
        assert 100 * len(process.stdout.readline()) > 100_000
        process.terminate()
        said = process.communicate()[1].splitlines()
    assert process.returncode == 143 and said[-2].startswith('done: ') and said[-1] == 'fer_nb video: stopped'
    names = sorted(path.name for path in (tmp_path / 'out').iterdir())
    assert len(names) % 4 == 0 and not [name for name in names if 'part' in name]


def test_links_and_pipes_are_written_to(clip, run, tmp_path):
    "A link stays one, a pipe gets the rows, and so does stdout, without a word between them."
    (tmp_path / 'real.csv').write_text('old')
    (tmp_path / 'link.csv').symlink_to('real.csv')
    os.mkfifo(tmp_path / 'pipe.json')
    words = 'fer_nb', 'video', clip, '--quiet', '--detector', 'haar'
    with ThreadPoolExecutor(1) as pool:
        got = pool.submit((tmp_path / 'pipe.json').read_text)
        done = run(*words, '--table', 'link.csv', '--summary', 'pipe.json', '--overwrite', cwd=tmp_path)
    assert done.returncode == 0 and json.loads(got.result())['frames'] == 12
    assert (tmp_path / 'link.csv').is_symlink() and len(pandas.read_csv(tmp_path / 'real.csv')) == 12
    done = run(*words, '--table', '-', cwd=tmp_path)
    assert done.stdout.splitlines() == (tmp_path / 'real.csv').read_text().splitlines()
    assert json.loads(run(*words, '--summary', '/dev/stdout', cwd=tmp_path).stdout)['frames'] == 12


def test_a_closed_pipe_ends_the_work(photos, tmp_path):
    "Where the table is all that is wanted, nothing is left to be done."
    program = PROGRAM.replace('analyze_video(', 'import os; analyze_video(')
    command = [sys.executable, '-c', program, str(photos[0]), str(tmp_path), '1000000', '0', 'table=a.csv']
    os.mkfifo(tmp_path / 'a.csv')
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        with open(tmp_path / 'a.csv') as pipe: assert pipe.readline().startswith('frame,time,face')
        said = process.communicate(timeout=300)[1]
    assert process.returncode == 1 and 'BrokenPipeError' in said


REFUSED = {
    '--video-out {clip} --overwrite': 'it is the video that is read',
    '--table {clip}': 'must end in .csv', '--table folder': 'must end in .csv',
    '--table missing/no/a.csv --timeline missing/no': 'must end in .png', '--video-out -': 'must end in .mp4',
    '--summary - --json': 'stdout can take one thing only', '--table - --summary -': 'wanted for two things',
    '--out {clip}': 'it is a file', '--table {clip}/a.csv': 'cannot be written',
}


@pytest.mark.parametrize('words', REFUSED)
def test_targets_are_checked_before_the_work(words, clip, run, tmp_path):
    (tmp_path / 'folder').mkdir()
    done = run('fer_nb', 'video', clip, '--quiet', *words.format(clip=clip).split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, '') and REFUSED[words] in done.stderr.splitlines()[-1]
    assert clip.stat().st_size > 1000


def test_links_in_a_circle(clip, run, tmp_path):
    for a, b in (('x.mp4', 'y.mp4'), ('y.mp4', 'x.mp4')): (tmp_path / a).symlink_to(tmp_path / b)
    done = run('fer_nb', 'video', tmp_path / 'x.mp4', clip, '--out', tmp_path / 'out', '--quiet')
    assert done.returncode == 1 and 'x.mp4: it cannot be opened' in done.stderr
    assert done.stderr.endswith('done: 1, skipped: 0, failed: 1\n')
