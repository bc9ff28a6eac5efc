"""Tests the model card of an export: its fields, what it says, and what it leaves alone."""

import dataclasses
import json
import re

import numpy as np
import pytest
import yaml

from efficientnetv2.evaluation.loaded_model import LoadedModel
from efficientnetv2.export.exporter import ExportOptions, ExportResult
from efficientnetv2.export.formats import FORMATS
from efficientnetv2.export.verify import Check
from efficientnetv2.reporting.file_use import file_use
from efficientnetv2.reporting.model_card import MARK, write_model_card
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams import resolve
from hparams.label_kinds import NUMBERS, SEVERAL
from tests.efficientnetv2.export.conftest import SETTINGS, servable_of
from tests.package_folder import install_apart, run_apart

TINY = {**SETTINGS, "model.blocks_args": ["r1_k3_s1_e1_i8_o8_c1"], "model.feature_size": 8}
CHECK = Check(1.5, 2.25, 1e-3, 0.99, 0.01, 0.88, None)
READ = """
import json, sys
from huggingface_hub import ModelCard
data = ModelCard.load(sys.argv[1]).data
(row,) = data.eval_results
result = [row.metric_type, row.metric_name, row.metric_value, row.dataset_type, row.dataset_split]
print(json.dumps([data.to_dict(), result, data.model_name]))
"""


@pytest.fixture(scope="module")
def servable():
    return servable_of(**TINY)


@pytest.fixture(scope="module")
def config():
    data = {"data.data_dir": "/home/me/secret/my photos", "data.eval_split": "test"}
    return resolve("efficientnetv2-b0", "folder", {**TINY, **data, "model.num_classes": 10})


@pytest.fixture
def write(servable, config, tmp_path):
    """Writes a card; ``changes`` are those of the network, the result, or the options."""

    def of(row, changes):
        names = {field.name for field in dataclasses.fields(row)}
        return dataclasses.replace(row, **{k: v for k, v in changes.items() if k in names})

    def call(run=None, *, formats=("tflite", "onnx"), **changes):
        network = of(servable, changes)
        paths = {name: tmp_path / f"b0_{name}" for name in formats}
        checks = {path.name: CHECK for path in paths.values()}
        result = of(ExportResult(network, 200, 0.9, checks, paths, [], {}, {}, []), changes)
        options = ExportOptions(formats, tmp_path, [], True, False, False, False, False, 0.5)
        loaded = LoadedModel(network.model, config, network.class_names, "x", is_average=True)
        loaded = None if network.is_own else loaded
        assert write_model_card(result, of(options, changes), loaded, run)
        return (tmp_path / "README.md").read_text(encoding="utf-8")

    return call


def fields_of(card):
    return yaml.safe_load(card.split("---\n")[1])


@pytest.mark.slow  # installs a package
def test_hugging_faces_own_reader_takes_it(write, tmp_path, tmp_path_factory):
    write(license="apache-2.0")
    folder = install_apart(
        tmp_path_factory.mktemp("hub"), "huggingface_hub==0.36.2", "filelock==3.20.0"
    )
    data, result, name = json.loads(run_apart(folder, READ, tmp_path / "README.md"))
    assert data["license"] == "apache-2.0" and data["library_name"] == "litert"
    assert data["pipeline_tag"] == "image-classification"
    assert data["tags"] == ["image-classification", "efficientnetv2", "litert", "onnx"]
    assert (data["datasets"], data["metrics"]) == (["my-photos"], ["accuracy"])
    assert result == ["accuracy", "top-1 accuracy", 0.9, "my-photos", "test"]
    assert name == "efficientnetv2-b0-my-photos"


def test_it_says_what_the_export_measured(write):
    card = write()
    assert card.startswith(f"---\n{MARK}\n")
    assert "license" not in fields_of(card)  # nobody has named one
    assert (
        "**90.0%** of 200 images of my photos (split test); 95% interval: 85.1% to 93.4%." in card
    )
    row = "| `b0_onnx` | ONNX Runtime | 1.50 | 2.2 | 99.0% | 0.8800 | -0.0200 |"
    assert row in card.splitlines()
    assert "secret" not in card  # where the data lie is nobody's business
    assert "\n\n\n" not in card and "None" not in card.replace("run(None", "")


def evaluated(folder, **metrics):
    run = RunDirectory(folder / "run")
    run.start(resolve("efficientnetv2-b0", "digits", TINY), [str(number) for number in range(10)])
    row = {"images": 1000, "top1": 0.91, "top5": 0.99, "loss": 0.3, **metrics}
    content = {"data_set": "folder", "split": "test", "raw": {"top1": 0.1}, "ema": row}
    run.result_file().write_text(json.dumps(content))
    return run


def test_metrics_are_those_of_the_evaluation(write, tmp_path):
    run = evaluated(tmp_path, ece=0.083, ece_calibrated=0.021)
    run.split_file.write_text("split,path\ntrain,a\ntrain,b\ntest,c\n")
    run.append_metrics({"epoch": 1, "step": 10, "image_size": 16})
    run.append_metrics({"epoch": 2, "step": 20, "image_size": 32})
    card = write(run, temperature=1.5)
    values = [
        entry["value"] for entry in fields_of(card)["model-index"][0]["results"][0]["metrics"]
    ]
    assert values == [0.91, 0.99]
    assert "**91.0%** of 1,000 images" in card
    assert "the network divides its logits by 1.5" in card
    assert "is off by 2.1 points on average" in card and "without the division by 8.3" in card
    assert "| data | digits: train 2, test 1 images |" in card
    assert "| epochs | 2 |" in card and "| image size in training | 16 to 32 pixels |" in card
    assert "efficientnetv2 train --model_name=efficientnetv2-b0 --dataset_cfg=digits" in card


def test_metrics_are_those_of_the_best_weights(write, tmp_path):
    """They are those that an export takes, if a training kept them."""
    run = evaluated(tmp_path)
    content = json.loads(run.result_file().read_text())
    content["best"] = {**content["ema"], "top1": 0.93}
    run.result_file().write_text(json.dumps(content))
    assert "**93.0%** of 1,000 images" in write(run)


@pytest.mark.parametrize(
    "content",
    [
        {"top1": 0.5},  # of another network
        {"images": 200, "top1": 0.92},  # of another one, on the same images
        {"images": "many"},
    ],
)
def test_an_evaluation_of_another_network_is_not_used(write, tmp_path, content):
    assert "**90.0%** of 200 images" in write(evaluated(tmp_path, **content))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"ema": 1, "split": "test"}'])
def test_a_damaged_evaluation_is_not_used(write, tmp_path, text):
    run = evaluated(tmp_path)
    run.result_file().write_text(text)
    assert "**90.0%** of 200 images" in write(run)


def test_without_labels_it_claims_nothing(write):
    card = write(keras_accuracy=None)
    assert "Not measured: the images that the files were checked on have no labels." in card
    assert {"model-index", "metrics", "datasets"}.isdisjoint(fields_of(card))
    assert "| file | for | MB | ms an image | same first class |" in card


def test_names_cannot_break_the_page(write):
    card = write(class_names=["a|b", "<script>", "[x](y)", "two\nlines", *"456789"])
    assert r"a\|b, \<script\>, \[x\](y), two lines, 4" in card


def test_many_classes_are_not_all_listed(write):
    card = write(class_names=[f"c{number}" for number in range(1000)])
    assert "c99 and 900 more. `labels.txt` has them" in card and "1,000 classes" in card


def test_several_classes_and_numbers(write):
    several = write(kind=SEVERAL, levels=np.full(10, 0.5))
    assert fields_of(several)["metrics"] == ["f1"]
    assert "an image may have several" in several and "| micro F1 | 0.9000 |" in several
    numbers = write(kind=NUMBERS, class_names=["age"], output_name="numbers", levels=np.ones(1))
    assert "pipeline_tag" not in fields_of(numbers)
    assert fields_of(numbers)["tags"][0] == "image-regression"
    assert "## Numbers\n\nage." in numbers and "1 number," in numbers
    assert "print(dict(zip(names, numbers)))" in numbers


def test_normalised_images_and_integers(write):
    card = write(preprocessing=False, integer_io=True, formats=["tflite_int8"], resize="crop")
    assert (
        "images = np.float32((images - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375])"
        in card
    )
    assert "This stretches the image" in card
    assert 'given["quantization"]' in card
    for code in re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL):
        compile(code, "card", "exec")


def test_a_keras_model_of_the_users(write):
    card = write(is_own=True, model_name="mine", limits=(0.0, 1.0))
    assert fields_of(card)["tags"] == ["image-classification", "litert", "onnx"]
    assert "model-index" not in fields_of(card)  # it would need the name of the data
    assert "right class for **90.0%** of 200 images; 95% interval" in card
    assert "images = np.float32(images * 0.00392156862745098 + 0.0)" in card
    assert "train it again" not in card and "# mine\n" in card


def test_every_format_says_what_opens_its_files():
    assert [name for name in FORMATS if file_use(name) is None] == []


def test_a_file_that_is_too_far_off_is_named(write):
    fault = dataclasses.replace(CHECK, fault="differs by 0.5 (at most 0.001 is allowed)")
    card = write(formats=["onnx"], checks={"b0_onnx": fault})
    assert "`b0_onnx` (too far from the network: differs by 0.5 (at most 0.001 is allowed))" in card


def test_a_page_that_somebody_wrote_stays(write, servable, config, tmp_path):
    card = write()
    assert write() == card  # ours is written again
    mine = tmp_path / "README.md"
    mine.write_text(card.replace(f"{MARK}\n", "") + "My own words.\n", encoding="utf-8")
    before = mine.read_bytes()
    options = ExportOptions(["onnx"], tmp_path, [], True, False, False, False, False, 0.5)
    result = ExportResult(servable, 1, None, {}, {}, [], {}, {}, [])
    loaded = LoadedModel(servable.model, config, servable.class_names, "x")
    assert not write_model_card(result, options, loaded, None)
    assert mine.read_bytes() == before
