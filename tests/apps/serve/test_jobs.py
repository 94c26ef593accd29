"""Labelling jobs of the server: `/v1/jobs`, their queue and their state. Runs are scripted here; see test_jobs_run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.apps.serve.api_requests import picture
from tests.apps.serve.job_runs import Scripted

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from partclipseg.apps.cli import main
from partclipseg.apps.serve.command import create_app
from partclipseg.apps.serve.engine import Engine, Limits
from partclipseg.apps.serve.jobs.run import Setup
from partclipseg.apps.serve.jobs.runner import MOST_WAITING, Jobs
from partclipseg.client import Client
from partclipseg.errors import PartCLIPSegError

WORDS = {"dog": ["ear", "head"], "bus": ["wheel"]}


@pytest.fixture
def place(tmp_path) -> SimpleNamespace:
    return make_place(tmp_path)


def make_place(tmp_path: Path) -> SimpleNamespace:
    """A folder of photos with links and oddities, and one for results."""
    photos = tmp_path / "photos"
    (photos / "cars/monday").mkdir(parents=True)
    (photos / "cars/monday/a.png").write_bytes(picture())
    (photos / "con").mkdir()
    (photos / "größe").mkdir()
    (tmp_path / "private").mkdir()
    (photos / "out").symlink_to(tmp_path / "private")
    (photos / "in").symlink_to(photos / "cars")
    (photos / "loop").symlink_to(photos / "loop")
    return SimpleNamespace(root=tmp_path, photos=photos, results=tmp_path / "results")


@pytest.fixture
def opened(place) -> Iterator[Callable[..., tuple[Jobs, list[Scripted]]]]:
    """Opens jobs whose runs are scripted, and closes them at the end."""
    every: list[Jobs] = []

    def opened() -> tuple[Jobs, list[Scripted]]:
        runs: list[Scripted] = []

        def start(*given) -> Scripted:
            runs.append(Scripted(*given))
            return runs[-1]

        every.append(Jobs(place.photos, place.results, Setup({"random": "models/random"}), start))
        return every[-1], runs

    yield opened
    for jobs in every:
        jobs.close()


@pytest.fixture
def first(opened) -> tuple[Jobs, list[Scripted]]:
    """The jobs of `api`, and their runs."""
    return opened()


@pytest.fixture
def api(make_engine, first) -> tuple[TestClient, list[Scripted]]:
    jobs, runs = first
    app = create_app(make_engine(max_classes=20), local=True, jobs=jobs)
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False), runs


def ask(client: TestClient, **fields):
    return client.post("/v1/jobs", json={"folder": "cars/monday", "vocabulary": WORDS, **fields})


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last, "it did not come to this"
        time.sleep(0.01)


def state(client: TestClient, name: str = "cars-monday") -> str:
    return client.get(f"/v1/jobs/{name}").json()["state"]


@pytest.fixture(scope="module")
def refusing(random_segmenter, tmp_path_factory) -> Iterator[tuple[TestClient, SimpleNamespace]]:
    """A client of a server that labels nothing, and its folders, in which two names are taken."""
    place = make_place(tmp_path_factory.mktemp("refusing"))
    (place.results / "taken").mkdir(parents=True)
    (place.results / "linked").symlink_to(place.root / "private")
    engine = Engine({"random": random_segmenter}, Limits(max_classes=20))
    jobs = Jobs(place.photos, place.results, Setup({"random": None}), Scripted)
    app = create_app(engine, local=True, jobs=jobs)
    yield TestClient(app, base_url="http://localhost", raise_server_exceptions=False), place
    jobs.close()
    engine.close()


# -- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/cars", "/v1/jobs/a/../b"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_without_the_option_everything_is_refused(engine, method, path):
    client = TestClient(create_app(engine))
    answer = client.request(method, path)
    assert answer.status_code == 403
    assert answer.json()["detail"] == "this server labels no folders: that needs a server that was started with --jobs"
    assert not [name for name in client.get("/openapi.json").json()["paths"] if "jobs" in name]


BELOW = "folder must be a path below the server's folder of photos"


@pytest.mark.parametrize(
    ("fields", "code", "sentence"),
    [
        ({"folder": "../private"}, 422, BELOW),
        ({"folder": "cars/../../private"}, 422, BELOW),
        ({"folder": "/etc"}, 422, BELOW),
        ({"folder": "//etc"}, 422, BELOW),
        ({"folder": "..\\private"}, 422, BELOW),
        ({"folder": "out"}, 422, "'out' is a link that leads out of the server's folder of photos"),
        ({"folder": "loop"}, 422, "there is no folder 'loop'"),
        ({"folder": "tuesday"}, 422, "there is no folder 'tuesday'"),
        ({"folder": "cars/monday/a.png"}, 422, "'cars/monday/a.png' is no folder"),
        ({"folder": "a\0b"}, 422, "there is no folder 'a"),
        ({"folder": "x" * 900}, 422, "there is no folder"),
        ({"folder": "x" * 1001}, 422, "folder must have at most 1000 characters"),
        ({"folder": "\ud800"}, 422, "folder"),
        ({"folder": ""}, 422, "folder must not be empty"),
        ({"folder": 3}, 422, "folder must be text"),
        ({"folder": None}, 422, "folder must be text"),
        ({"folder": "."}, 422, "no name can be made from the folder '.': give the job a name"),
        ({"folder": "con"}, 422, "'con' cannot be the name of a folder on every system"),
        ({"name": "../up"}, 422, "name may have letters, digits, _, - and . alone"),
        ({"name": ".hidden"}, 422, "name may have letters, digits, _, - and . alone"),
        ({"name": "dot."}, 422, "name may have letters, digits, _, - and . alone"),
        ({"name": "a/b"}, 422, "name may have letters, digits, _, - and . alone"),
        ({"name": "a\n"}, 422, "name may have letters, digits, _, - and . alone"),
        ({"name": "x" * 101}, 422, "name must have at most 100 characters"),
        ({"name": "Nul.txt"}, 422, "cannot be the name of a folder on every system"),
        ({"name": "taken"}, 409, "something else is at 'taken' in the folder of results"),
        ({"name": "linked"}, 409, "something else is at 'linked' in the folder of results"),
        ({"vocabulary": "words.yaml"}, 422, "is no catalogue"),
        ({"vocabulary": {"dog": [f"part {n}" for n in range(30)]}}, 422, "30 classes are more than the limit of 20"),
        ({"vocabulary": None}, 422, "no words are given"),
        ({"model": "other"}, 422, "there is no model 'other' here"),
        ({"objects": ["owl"]}, 422, "'owl' is not an object of the vocabulary"),
        ({"formats": ["exe"]}, 422, "formats: unknown format 'exe'"),
        ({"formats": []}, 422, "formats must not be empty"),
        ({"instances": "detector"}, 422, "this server has no detector"),
        ({"instances": [{"object": "dog", "box": [0, 0, 1, 1]}]}, 422, "boxes are for one photo"),
        ({"rest": True}, 422, "rest is for instances"),
        ({"formats": ["partpq"]}, 422, "the format partpq is for instances"),
        ({"min_score": 2}, 422, "min_score must be at most 1"),
        ({"overwrite": True}, 422, "there is no field 'overwrite'"),
        ({"photo": "x"}, 422, "there is no field 'photo'"),
        ({"vocabulary": "dog: " + "x" * 200_000}, 413, "the request is too long"),
    ],
)
def test_what_cannot_be_labelled_is_a_sentence(refusing, fields, code, sentence):
    client, place = refusing
    answer = client.post(
        "/v1/jobs",
        content=json.dumps({"folder": "cars/monday", "vocabulary": WORDS, **fields}),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == code, answer.text
    assert sentence in answer.json()["detail"]
    assert str(place.root) not in answer.text
    assert client.get("/v1/jobs").json() == {"jobs": []}
    assert sorted(path.name for path in place.results.iterdir()) == ["linked", "taken"]


@pytest.mark.parametrize(
    ("content", "kind", "code", "sentence"),
    [
        (b"{", "application/json", 400, "not valid JSON"),
        (b"[]", "application/json", 422, "the JSON body must be an object"),
        (b"{}", "application/json", 422, "folder is missing"),
        (b"folder=x", "application/x-www-form-urlencoded", 415, "send application/json"),
        (b"--x--", "multipart/form-data; boundary=x", 415, "send application/json"),
    ],
)
def test_other_bodies_are_sentences(api, content, kind, code, sentence):
    answer = api[0].post("/v1/jobs", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, sentence in answer.json()["detail"]) == (code, True), answer.text


def test_names_and_methods_that_are_none(api):
    client, _ = api
    for method, path, code in [
        ("GET", "/v1/jobs/none", 404), ("DELETE", "/v1/jobs/none", 404), ("GET", "/v1/jobs/..%2Fprivate", 404),
        ("PUT", "/v1/jobs", 405), ("POST", "/v1/jobs/none", 405), ("HEAD", "/v1/jobs", 200),
    ]:  # fmt: skip
        answer = client.request(method, path)
        assert answer.status_code == code, (method, path)
        assert method == "HEAD" or answer.json()["detail"]
    assert client.post("/v1/jobs/none").headers["allow"] == "DELETE, GET, HEAD"


@pytest.mark.parametrize(("folder", "name"), [("in/monday", "in-monday"), ("größe", "gr-e"), ("./cars//monday/", None)])
def test_a_job_is_named_by_its_folder(api, folder, name):
    answer = ask(api[0], folder=folder)
    assert answer.status_code == 201, answer.text
    assert answer.json()["name"] == (name or "cars-monday")
    assert answer.headers["location"] == f"/v1/jobs/{name or 'cars-monday'}"
    assert name or answer.json()["folder"] == "cars/monday"


def test_pages_of_others_start_no_jobs(api):
    client, _ = api
    assert client.post("/v1/jobs", json={"folder": "cars"}, headers={"Origin": "http://evil.test"}).status_code == 403


# -- the life of a job ----------------------------------------------------------------------------------------


def test_a_job_runs_and_tells_how_far_it_is(api, place):
    client, runs = api
    asked = {"zoom": True, "objects": ["dog"], "formats": ["coco", "yolo"], "min_score": 0.5}
    made = ask(client, min_part_probability=0.25, **asked)
    assert made.status_code == 201
    until(lambda: runs)
    label = runs[0].label
    assert (label.folder, runs[0].within) == (place.photos / "cars/monday", place.photos)
    assert label.output == place.results / "cars-monday/labels"
    assert (label.model, label.zoom, label.objects) == ("models/random", True, ("dog",))
    assert label.formats == ("coco", "yolo")
    assert (label.min_score, label.min_part_probability, label.overwrite) == (0.5, 0.25, False)
    words = json.loads(Path(label.vocabulary).read_text())
    assert words == [["dog", "ear"], ["dog", "head"], ["bus", "wheel"]]
    runs[0].said.put({"photos": 9, "labelled": 4, "failed": 1})
    runs[0].said.put({"said": f"a line about {place.photos}/cars and {place.results}"})
    until(lambda: client.get("/v1/jobs/cars-monday").json()["said"])
    job = client.get("/v1/jobs/cars-monday").json()
    assert (job["state"], job["photos"], job["labelled"], job["failed"]) == ("running", 9, 4, 1)
    assert job["said"] == ["a line about cars and ."]
    assert job["vocabulary"] == ["dog's ear", "dog's head", "bus's wheel"]
    runs[0].end(0, ended=0)
    until(lambda: state(client) == "done")
    job = client.get("/v1/jobs").json()["jobs"][0]
    assert job["created"] < job["started"] < job["ended"]
    assert (job["error"], job["output"]) == (None, "cars-monday/labels")


def test_the_same_request_is_the_same_job(api):
    client, runs = api
    assert [ask(client).status_code for _ in range(2)] == [201, 200]
    until(lambda: runs)
    assert (ask(client).status_code, len(runs)) == (200, 1)
    for other in ({"vocabulary": "dog: ear"}, {"formats": ["png"]}, {"zoom": True}, {"min_score": 0.1}):
        answer = ask(client, **other)
        assert answer.status_code == 409
        assert "has other options: give this one another name" in answer.json()["detail"]
    runs[0].end(0, ended=0)
    until(lambda: state(client) == "done")
    assert ask(client).status_code == 200  # photos that came since
    until(lambda: len(runs) == 2)


def test_jobs_wait_for_their_turn_and_can_be_stopped(api):
    client, runs = api
    for name in ("one", "two", "three"):
        assert ask(client, name=name).status_code == 201
    until(lambda: state(client, "one") == "running")
    assert [job["state"] for job in client.get("/v1/jobs").json()["jobs"]] == ["running", "waiting", "waiting"]
    assert client.delete("/v1/jobs/two").json()["state"] == "stopped"
    assert client.delete("/v1/jobs/one").json()["state"] == "stopping"
    until(lambda: len(runs) == 2)
    assert state(client, "three") == "running"
    assert [state(client, name) for name in ("one", "two")] == ["stopped", "stopped"]
    assert client.delete("/v1/jobs/one").json()["state"] == "stopped"  # once more changes nothing
    assert [run.folder.name for run in runs] == ["one", "three"]
    assert ask(client, name="one").json()["state"] == "waiting"
    runs[1].end(0, ended=1)
    until(lambda: len(runs) == 3)
    assert (runs[2].folder.name, state(client, "one")) == ("one", "running")


def test_a_job_that_is_being_stopped_takes_its_time(opened, api, monkeypatch):
    client, runs = api
    monkeypatch.setattr(Scripted, "stop", lambda self: None)
    ask(client)
    until(lambda: runs)
    client.delete("/v1/jobs/cars-monday")
    answer = ask(client)
    assert (answer.status_code, "is being stopped: try again" in answer.json()["detail"]) == (409, True)
    runs[0].end(143)
    until(lambda: state(client) == "stopped")


def test_there_is_a_limit_to_what_waits(api):
    client, _ = api
    ask(client, name="first")
    until(lambda: state(client, "first") == "running")
    codes = [ask(client, name=f"job-{number}").status_code for number in range(MOST_WAITING + 1)]
    assert codes == [201] * MOST_WAITING + [503]
    assert ask(client, name="more").headers["retry-after"]


@pytest.mark.parametrize(
    ("code", "event", "found", "sentence"),
    [
        (0, {"ended": 0}, "done", None),
        (1, {"ended": 1}, "done", None),
        (1, {"error": "{photos}/cars/monday: no photos"}, "failed", "cars/monday: no photos"),
        (1, {}, "failed", "its process ended with code 1, which log.txt in its folder may explain: ask for the same"),
        (-signal.SIGKILL, {}, "failed", "its process ended with code -9"),
    ],
)
def test_ends_of_a_job(api, place, code, event, found, sentence):
    client, runs = api
    ask(client)
    until(lambda: runs)
    runs[0].end(code, **{key: str(value).format(photos=place.photos) for key, value in event.items()})
    until(lambda: state(client) not in {"waiting", "running"})
    job = client.get("/v1/jobs/cars-monday").json()
    assert job["state"] == found
    assert job["error"] is None if sentence is None else job["error"].startswith(sentence)


def test_errors_are_in_the_words_of_clients(place, opened, make_engine):
    place.results = place.root / "photos-labels"  # begins as the folder of photos does
    jobs, runs = opened()
    client = TestClient(create_app(make_engine(max_classes=20), local=True, jobs=jobs), base_url="http://localhost")
    ask(client)
    until(lambda: runs)
    began = f"{place.results}/cars-monday/labels was begun with other options (zoom: True then, False now)"
    runs[0].end(1, error=f"{began}: go on with those, or name another folder with --output")
    until(lambda: state(client) == "failed")
    assert client.get("/v1/jobs/cars-monday").json()["error"] == (
        "cars-monday/labels was begun with other options (zoom: True then, False now): go on with those, or give the "
        "job another name"
    )


@pytest.mark.parametrize("code", [143, 130, -15, -2])
def test_a_run_that_the_system_stops_goes_on(api, code):
    """A service manager signals to all processes at once; the job must go on when the service is back."""
    client, runs = api
    ask(client)
    until(lambda: runs)
    runs[0].end(code)
    until(lambda: len(runs) == 2)
    assert state(client) == "running"


def test_links_in_the_folder_of_a_job_are_not_written_to(api, place):
    client, runs = api
    ask(client)
    until(lambda: runs)
    (place.results / "cars-monday/labels").symlink_to(place.root / "private")
    runs[0].end(0, ended=0)
    until(lambda: state(client) == "done")
    ask(client)
    until(lambda: state(client) == "failed")
    error = client.get("/v1/jobs/cars-monday").json()["error"]
    assert error == "cars-monday/labels is a link: jobs write into their own folders only"


@pytest.mark.parametrize("more", [{}, {"vocabulary": "dog: tail"}])
def test_a_job_whose_folder_was_moved_away_is_forgotten(api, place, more):
    client, runs = api
    ask(client)
    until(lambda: runs)
    runs[0].end(0, ended=0)
    until(lambda: state(client) == "done")
    (place.results / "cars-monday").rename(place.root / "kept elsewhere")
    answer = ask(client, **more)
    assert answer.status_code == 201, answer.text
    until(lambda: len(runs) == 2)
    assert Path(runs[1].label.vocabulary).is_file()


def test_the_folder_of_a_job_is_not_made_again(api, place):
    client, runs = api
    ask(client)
    until(lambda: runs)
    shutil.rmtree(place.results / "cars-monday")
    (place.results / "cars-monday").symlink_to(place.root / "private")
    runs[0].end(1, error="labels: gone")
    until(lambda: state(client) == "failed")
    assert not list((place.root / "private").iterdir())
    answer = ask(client)
    assert (answer.status_code, "something else is at" in answer.json()["detail"]) == (409, True)
    (place.results / "cars-monday").unlink()
    assert ask(client).status_code == 201


def test_moved_folders_make_room_for_new_jobs(api, place, monkeypatch):
    monkeypatch.setattr("partclipseg.apps.serve.jobs.runner.MOST_JOBS", 1)
    client, runs = api
    ask(client)
    until(lambda: runs)
    runs[0].end(0, ended=0)
    until(lambda: state(client) == "done")
    assert "have folders of old ones moved away" in ask(client, name="new").json()["detail"]
    shutil.rmtree(place.results / "cars-monday")
    assert ask(client, name="new").status_code == 201


def test_deleted_words_of_a_job_are_written_again(api, place):
    client, runs = api
    words = place.results / "second/words.json"
    ask(client, name="first")
    until(lambda: runs)
    ask(client, name="second")
    words.unlink()
    runs[0].end(0, ended=0)
    until(lambda: state(client, "second") == "failed")
    error = client.get("/v1/jobs/second").json()["error"]
    assert error == "second/words.json was deleted: ask for the same again, and it is made again"
    assert ask(client, name="second").status_code == 200
    until(lambda: len(runs) == 2)
    assert json.loads(words.read_text()) == [["dog", "ear"], ["dog", "head"], ["bus", "wheel"]]


def test_a_run_that_cannot_start_does_not_end_the_queue(place, make_engine):
    started: list[Scripted] = []

    def start(*given) -> Scripted:
        if not started:
            started.append(Scripted(*given))
            raise TypeError("cannot be sent to a process")
        started.append(Scripted(*given))
        return started[-1]

    jobs = Jobs(place.photos, place.results, Setup({"random": None}), start)
    try:
        app = create_app(make_engine(max_classes=20), local=True, jobs=jobs)
        client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
        ask(client)
        until(lambda: state(client) == "failed")
        error = client.get("/v1/jobs/cars-monday").json()["error"]
        assert error == "a fault of this server, whose log says more: cannot be sent to a process"
        ask(client)
        until(lambda: state(client) == "running")
    finally:
        jobs.close()


# -- the next start -------------------------------------------------------------------------------------------


def test_jobs_go_on_when_the_server_starts_again(api, first, opened, place):
    client, runs = api
    for name in ("ran", "stopped", "waited", "done"):
        ask(client, name=name)
    until(lambda: state(client, "ran") == "running")
    client.delete("/v1/jobs/stopped")
    path = place.results / "done/job.json"
    killed = {one: (place.results / one / "job.json").read_text() for one in ("ran", "waited")}
    first[0].close()
    for one, text in killed.items():  # as a killed server would have left them
        (place.results / one / "job.json").write_text(text)
    path.write_text(path.read_text().replace('"waiting"', '"done"'))
    jobs, runs = opened()
    until(lambda: runs)
    assert runs[0].folder.name == "ran"
    found = {job.name: job.state for job in jobs.all()}
    assert found == {"ran": "running", "stopped": "stopped", "waited": "waiting", "done": "done"}
    assert not jobs.damaged


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": "other"}', None])
def test_damaged_states_are_named_and_kept(opened, place, text):
    path = place.results / "old/job.json"
    path.parent.mkdir(parents=True)
    path.mkdir() if text is None else path.write_text(text)
    jobs, _ = opened()
    assert jobs.all() == []
    [sentence] = jobs.damaged
    assert sentence.startswith(f"{path} is not the state of a job (")
    assert path.is_dir() if text is None else path.read_text() == text


def test_a_pipe_in_place_of_a_state_is_not_waited_for(opened, place):
    (place.results / "old").mkdir(parents=True)
    os.mkfifo(place.results / "old/job.json")
    assert "it is no regular file" in opened()[0].damaged[0]


def test_a_closed_queue_takes_no_jobs(api, first):
    client, _ = api
    ask(client)
    until(lambda: state(client) == "running")
    first[0].close()
    assert state(client) == "waiting"
    answer = ask(client, name="new")
    assert (answer.status_code, "the server is stopping" in answer.json()["detail"]) == (503, True)


def test_only_one_server_has_the_results(opened, place):
    opened()
    with pytest.raises(PartCLIPSegError, match=r"another server labels into .*: stop it, or name another"):
        opened()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--jobs", "photos"], "--jobs and --jobs-output belong together"),
        (["--jobs-output", "results"], "--jobs and --jobs-output belong together"),
        (["--jobs", "nowhere", "--jobs-output", "results"], "--jobs: there is no folder nowhere"),
        (["--jobs", "photos", "--jobs-output", "photos/labels"], "lie in each other"),
        (["--jobs", "photos/cars", "--jobs-output", "photos"], "lie in each other"),
        (["--jobs", "photos", "--jobs-output", "photos/in/../cars/x"], "lie in each other"),
        (["--jobs", "photos", "--jobs-output", "photos/cars/monday/a.png"], "--jobs-output: "),
        (["--jobs", "photos", "--jobs-output", "results", "--host", "0.0.0.0"], "set --token"),
    ],
)
def test_wrong_options_are_sentences(place, model_directory, monkeypatch, capsys, options, words):
    monkeypatch.chdir(place.root)
    assert main(["serve", "--port", "0", "--device", "cpu", "--model", str(model_directory), *options]) == 2
    assert words in " ".join("".join(capsys.readouterr()).split())


# -- the client of the package --------------------------------------------------------------------------------


def test_the_client_has_jobs(make_engine, opened, serving):
    jobs, runs = opened()
    with serving(make_engine(), jobs=jobs, token="secret") as address:
        client = Client(address, "secret")
        assert client.start_job("cars/monday", {"dog": ("ear",)}, name="mine", formats=["png"])["name"] == "mine"
        until(lambda: runs)
        assert [job["name"] for job in client.jobs()] == ["mine"]
        assert client.job("mine")["state"] == "running"
        assert client.stop_job("mine")["state"] == "stopping"
        until(lambda: client.job("mine")["state"] == "stopped")
        with pytest.raises(PartCLIPSegError, match="there is nothing at /v1/jobs/a/b"):
            client.job("a/b")
        with pytest.raises(PartCLIPSegError, match="this server needs its token"):
            Client(address).start_job("cars/monday", "dog: ear")


def test_the_state_survives_a_disk_that_is_full(api, place, monkeypatch):
    """A job that cannot be stored is refused; the server goes on."""
    client, _ = api
    if os.geteuid() == 0:
        monkeypatch.setattr("partclipseg.apps.serve.jobs.runner.whole_directory", _full)
    else:
        place.results.chmod(0o500)
    answer = ask(client)
    assert (answer.status_code, "the job cannot be stored" in answer.json()["detail"]) == (503, True)
    assert client.get("/v1/jobs").json() == {"jobs": []}


def _full(*_, **__):
    raise OSError(28, "No space left on device")
