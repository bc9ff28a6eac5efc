"""Exports pages and uses them in a headless Chromium: they see and say what Python does.

LiteRT.js comes from npm, and a server of this machine stands in for the public one; see
page_browser.py.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import efficientnetv2 as env2
from efficientnetv2 import get_model
from efficientnetv2.data.decode import decode_evaluation
from efficientnetv2.export import web_page
from efficientnetv2.export.formats import FORMATS
from hparams.errors import UserError

from .page_browser import browse

pytestmark = pytest.mark.slow  # all tests here need exports, and many a browser

NAME, SIDE, CLASSES = "efficientnetv2-b0", 48, 5
BLOCKS = "[r1_k3_s2_e1_i8_o8_c1,r1_k3_s2_e4_i8_o16_se0.25]"
NETWORK = f"model.blocks_args={BLOCKS},model.feature_size=16,model.num_classes={CLASSES}"
SETTINGS = f"{NETWORK},eval.isize={SIDE}"
# Rows of the metadata of a file; see Servable.metadata.
MEAN, DEVIATION = [123.0, 116.0, 103.0], [58.0, 57.0, 55.0]
VIEWS = [
    {"resize": "published", "preprocess": "v1", "image_size": 40, "channels": 3},
    {"resize": "published", "preprocess": "lite", "image_size": 40, "channels": 3},
    {"resize": "published", "preprocess": "v2", "image_size": 40, "channels": 3},
    {"resize": "published", "preprocess": "v2", "image_size": 320, "channels": 3},
    {"resize": "published", "preprocess": "v1", "image_size": 40, "channels": 3, "crop_pct": 0.7},
    {"resize": "published", "preprocess": "v2", "image_size": 320, "channels": 3, "crop_pct": 0.9},
    {"resize": "published", "preprocess": "torch_bilinear", "image_size": 40, "channels": 3},
    {
        "resize": "published",
        "preprocess": "torch_bicubic",
        "image_size": 41,
        "channels": 3,
        "crop_pct": 1.0,
    },
    {"resize": "published", "preprocess": "torch_bicubic_half", "image_size": 40, "channels": 1},
    {"resize": "squash", "preprocess": "torch_bicubic", "image_size": 130, "channels": 3},
    {"resize": "letterbox", "preprocess": "torch_bilinear", "image_size": 41, "channels": 3},
    {"resize": "squash", "preprocess": "v1", "image_size": 33, "channels": 3},
    {"resize": "crop", "preprocess": "v2", "image_size": 41, "channels": 3},
    {"resize": "letterbox", "preprocess": "v1", "image_size": 40, "channels": 3},
    {"resize": "letterbox", "preprocess": "v2", "image_size": 41, "channels": 1},
    {"resize": "squash", "preprocess": "v2", "image_size": 40, "channels": 1},
    {"resize": "crop", "preprocess": "v2", "image_size": 40, "channels": 3, "range": [0, 1]},
    {"resize": "crop", "preprocess": "v2", "image_size": 40, "channels": 3, "range": "normalised"},
]
SEEN = ["wide.png", "clear.png", "tiny.png"]  # lossless
LABELS = ["a", "b", "c"]
UNKNOWN = {"label": "unknown", "score": "max_probability", "threshold": 0.5}
ONE = {"labels": LABELS, "output": "probabilities"}
READINGS = [  # outputs, metadata; the answer, and which classes are shown, with a star if chosen
    ([0.2, 0.7, 0.1], ONE, "b", "b* a c"),
    ([0.2, 0.7, 0.1], {**ONE, "unknown": UNKNOWN}, "b", "b* a c"),
    ([0.3, 0.4, 0.3], {**ONE, "unknown": UNKNOWN}, "unknown", "b a c"),
    ([0.6, 0.7, 0.9], {**ONE, "thresholds": [0.5, 0.8, 0.5]}, "c, a", "c* a* b"),
    ([0.1, 0.2, 0.3], {**ONE, "thresholds": [0.5] * 3}, "none of the classes", "c b a"),
    ([-1.5, 20.0, 3.0], {**ONE, "output": "numbers"}, "a -1.5, b 20, c 3", "a* b* c*"),
]


def smooth(height, width, channels, seed):
    """An image that JPEG keeps nearly as it is."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, channels)).astype(np.uint8)
    planes = [
        Image.fromarray(coarse[..., n]).resize((width, height), Image.Resampling.BICUBIC)
        for n in range(channels)
    ]
    return np.stack([np.asarray(plane) for plane in planes], -1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten images of many kinds."""
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(smooth(90, 160, 3, 0)).save(folder / "wide.png")
    Image.fromarray(smooth(140, 75, 3, 1)).save(folder / "high.png")
    Image.fromarray(smooth(101, 98, 4, 2)).save(folder / "clear.png")
    Image.fromarray(smooth(70, 70, 1, 3)[..., 0]).save(folder / "grey.png")
    Image.fromarray(smooth(5, 3, 3, 4)).save(folder / "tiny.png")
    Image.fromarray(smooth(80, 120, 3, 5)).quantize(200).save(folder / "palette.gif")
    Image.fromarray(smooth(64, 48, 3, 6)).save(folder / "lossless.webp", lossless=True)
    Image.fromarray(smooth(60, 90, 3, 7)).save(folder / "old.bmp")
    exif = Image.Exif()
    exif[274] = 6  # the camera was held upright
    Image.fromarray(smooth(96, 160, 3, 8)).save(folder / "turned.jpg", quality=95, exif=exif)
    Image.fromarray(smooth(3000, 200, 3, 9)).save(folder / "tower.jpg", quality=95)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights that tell the photos apart."""
    overrides = {"blocks_args": BLOCKS, "feature_size": 16}
    tf.keras.utils.set_random_seed(5)
    model = get_model(NAME, num_classes=CLASSES, overrides=overrides)
    kernel, bias = model.layers[-1].get_weights()
    rng = np.random.default_rng(0)
    model.layers[-1].set_weights([rng.normal(0, 12, kernel.shape), bias])
    path = tmp_path_factory.mktemp("weights") / "tiny.weights.h5"
    model.save_weights(path)
    return path


@pytest.fixture(scope="module")
def predictions(weights, photos, main_tf2, tmp_path_factory):
    """Name of a photo -> the probabilities of the command line."""
    folder = tmp_path_factory.mktemp("predictions")
    command = ("--mode=infer", f"--model_name={NAME}", f"--weights={weights}")
    settings = (f"--hparam_str={SETTINGS}", f"--image_path={photos}", f"--top_k={CLASSES}")
    assert main_tf2(*command, *settings, "--output=all.json", cwd=folder).returncode == 0
    rows = json.loads((folder / "all.json").read_text())
    return {pathlib.Path(row["image"]).name: row for row in rows}


@pytest.fixture(scope="module")
def own(photos, tmp_path_factory):
    """The page of a user's Keras model that gives logits, and the probabilities of the photos."""
    layers = tf.keras.layers
    tf.keras.utils.set_random_seed(1)
    stack = [layers.Rescaling(1 / 127.5, -1), layers.Conv2D(8, 3, 2, activation="relu")]
    stack += [layers.GlobalAveragePooling2D(), layers.Dense(4)]
    model = tf.keras.Sequential([tf.keras.Input((SIDE, SIDE, 3)), *stack], name="mine")
    names, folder = ["p", "q", "r", "s"], tmp_path_factory.mktemp("own")
    page = env2.export("web", model, images=photos, class_names=names, output_dir=folder)
    view = {"image_size": SIDE, "preprocess": "v2", "resize": "squash"}
    probabilities = {}
    for path in photos.glob("*.png"):
        pixels = decode_evaluation(tf.constant(path.read_bytes()), **view)
        probabilities[path.name] = dict(zip(names, tf.nn.softmax(model(pixels[None])[0]).numpy()))
    return page, probabilities


@pytest.fixture(scope="module")
def exported(weights, photos, litert_js, main_tf2, tmp_path_factory):
    """The folders of two exports: a page that loads its runtime, and one that has it, in 8 bits."""
    folder = tmp_path_factory.mktemp("exported")
    command = ("--mode=export", f"--model_name={NAME}", f"--weights={weights}")
    command += (f"--hparam_str={SETTINGS}", f"--image_path={photos}")
    online = main_tf2(*command, "--format=web", "--output_dir=online", cwd=folder)
    assert online.returncode == 0, online.stderr
    flags = ("--format=web_int8", f"--web_runtime={litert_js}", "--output_dir=offline")
    assert main_tf2(*command, *flags, cwd=folder).returncode in (0, 2)  # 2: 8 bits are too few
    return folder / "online" / f"{NAME}_web", folder / "offline" / f"{NAME}_web_int8"


@pytest.fixture(scope="module")
def browsed(exported, own, photos, litert_js, tmp_path_factory):
    """What a browser shows of three pages, and without a runtime; and the pixels of CASES."""
    broken = tmp_path_factory.mktemp("broken") / "page"
    shutil.copytree(exported[0], broken)
    text = (broken / "index.html").read_text()
    (broken / "index.html").write_text(
        text.replace('"integrity": "sha384-', '"integrity": "sha384-A')
    )
    folders = {"online": exported[0], "offline": exported[1], "own": own[0], "broken": broken}
    plan = {
        "names": sorted(path.name for path in photos.iterdir()),
        "cases": [{"name": name, "metadata": metadata_of(view)} for view, name in CASES],
        "readings": [row[:2] for row in READINGS],
    }
    return browse(
        ["/online/?all", "/offline/", "/own/", "/broken/"],
        {**folders, "images": photos, "npm": litert_js / "node_modules"},
        plan,
        profile=tmp_path_factory.mktemp("chromium"),
    )


CASES = [(view, name) for view in VIEWS for name in SEEN]


def metadata_of(view):
    channels, unit = view["channels"], {"input_range": view.get("range", [0, 255])}
    return {**view, **unit, "mean": MEAN[:channels], "deviation": DEVIATION[:channels]}


@pytest.mark.parametrize("page", [0, 1])
def test_a_page_says_what_the_command_line_says(browsed, predictions, page):
    seen = browsed.seen[page]
    assert (seen.get("failed"), seen["problem"], seen["problems"]) == (None, [], [])
    assert len(seen["cards"]) == 10
    assert len({card["answer"] for card in seen["cards"]}) > 2
    for card in seen["cards"]:
        row = predictions[card["file"]]
        expected = {entry["name"]: entry["probability"] for entry in row["classes"]}
        assert card["answer"] == row["classes"][0]["name"], card
        shares = dict(zip(card["names"], (float(text[:-1]) / 100 for text in card["shares"])))
        exact = pathlib.Path(card["file"]).suffix != ".jpg" and card["file"] != "clear.png"
        allowed = (0.001 if exact else 0.03) if page == 0 else 0.2  # of 8 bits, in this network
        assert shares == pytest.approx(expected, abs=allowed), card
        assert card["time"].endswith(" ms)")


def test_a_keras_model_of_the_users_own_has_a_page(browsed, own):
    seen = browsed.seen[2]
    assert (seen.get("failed"), seen["problem"], seen["problems"]) == (None, [], [])
    assert seen["about"][0] == "mine"
    for card in seen["cards"]:
        if card["file"] in own[1] and card["file"] != "clear.png":
            shares = zip(card["names"], (float(text[:-1]) / 100 for text in card["shares"]))
            assert dict(shares) == pytest.approx(own[1][card["file"]], abs=0.001), card


def test_it_works_as_people_use_it(browsed):
    seen = browsed.seen[0]
    names = browsed.plan["names"]
    assert seen["about"][0] == "imagenet2012"
    size = f"{SIDE} \N{MULTIPLICATION SIGN} {SIDE} pixels"
    assert seen["about"][2].startswith(f"{NAME}, {size}, {CLASSES} classes: ")
    assert seen["status"].startswith(f"{names[-1]}: ")
    assert seen["cleared"]
    count, problem = seen["dropped"]
    assert (count, problem) == (1, ["notes.txt is not an image that this browser can open."])
    card, problem = seen["pasted"]
    assert (card["file"], problem) == (names[1], [])
    live, classes, time = seen["camera"]
    assert live == classes[0] and len(classes) == CLASSES and time.endswith(" ms)")
    assert seen["turned"] and seen["stopped"]
    assert seen["noCamera"].startswith("This page may not use the camera.")
    assert (seen["wide"], seen["wideCamera"]) == (0, 0)  # of a window of 400 pixels


def test_a_runtime_that_was_changed_is_refused(browsed):
    (problem,) = browsed.seen[3]["problem"]
    assert problem.startswith(
        "The program that runs the network could not be loaded from 127.0.0.1"
    )
    assert "--web_runtime" in problem


@pytest.mark.parametrize("number", range(len(READINGS)))
def test_thresholds_unknown_images_and_numbers(browsed, number):
    *_, answer, classes = READINGS[number]
    seen = browsed.seen[0]["readings"][number]
    assert seen["answer"] == answer
    stars = [f"{row['name']}{'*' if row['chosen'] else ''}" for row in seen["rows"]]
    assert " ".join(stars) == classes


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_page_sees_the_pixels_of_evaluation(browsed, photos, number):
    view, name = CASES[number]
    fill = None if view["channels"] == 3 else MEAN[:1]
    encoded = tf.constant((photos / name).read_bytes())
    how = {key: value for key, value in view.items() if key != "range"}
    expected = decode_evaluation(encoded, fill=fill, **how).numpy()
    seen = browsed.pixels[number].reshape(expected.shape)
    unit = view.get("range")
    if unit == "normalised":
        seen = seen * DEVIATION + MEAN
    elif unit == [0, 1]:
        seen = seen * 255
    # A browser blends with white in 8 bits, and bicubic weights can enlarge that difference.
    is_blended = name == "clear.png"
    allowed = 1.2 if is_blended else 0.01
    if view["preprocess"].startswith("torch") and view["channels"] == 3:
        # Colours half way between two whole numbers are rounded up or down.
        assert is_blended or np.mean(np.abs(seen - expected) > allowed) < 0.01
        allowed = 2.0
    np.testing.assert_allclose(seen, expected, atol=allowed)


def test_the_folder_has_the_checked_file(exported):
    online, offline = exported
    files = {"index.html", "style.css", "pixels.js", "network.js", "page.js", web_page.MODEL}
    assert {path.name for path in online.iterdir()} == files
    runtime = {path.name for path in (offline / web_page.LOCAL_RUNTIME).iterdir()}
    assert runtime == {pathlib.Path(file.path).name for file in web_page.RUNTIME.values()}
    assert web_page.CDN not in (offline / "index.html").read_text()
    assert "python -m http.server" in (online.parent / "README.md").read_text()  # the model card
    run = FORMATS["web"].open(online)
    image = np.full((1, SIDE, SIDE, 3), 100, np.float32)
    np.testing.assert_array_equal(
        run(image), FORMATS["tflite"].open(online / web_page.MODEL)(image)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logits": True}, "^--format=web shows probabilities, not logits"),
        (
            {"overrides": "model.channels=4,model.pixel_mean=[1,1,1,1],"
             "model.pixel_deviation=[1,1,1,1]"},
            "^--format=web is for photos, which have 1 or 3 channels; this network is for images "
            "of 4 channels$",
        ),
        ({"web_runtime": "."}, "^--web_runtime=. has no @litertjs/core/dist/index.js of LiteRT.js"),
        ({"format": "tflite", "web_runtime": "."}, "^--web_runtime needs --format=web$"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(weights, photos, arguments, message):
    overrides = f"{NETWORK},{arguments.pop('overrides', 'eval.isize=32')}"
    format_name = arguments.pop("format", "web")
    with pytest.raises(UserError, match=message):
        env2.export(
            format_name, NAME, weights=weights, images=photos, overrides=overrides, **arguments
        )


def test_another_version_of_the_runtime_is_refused(litert_js, tmp_path):
    shutil.copytree(litert_js / "node_modules" / "@litertjs", tmp_path / "@litertjs")
    assert web_page.find_runtime(str(tmp_path)).keys() == web_page.RUNTIME.keys()
    with (tmp_path / "@litertjs" / "core" / "dist" / "index.js").open("a") as file:
        file.write("// changed\n")
    with pytest.raises(UserError, match=f"is not that of LiteRT.js {web_page.VERSION}; give the"):
        web_page.find_runtime(str(tmp_path))
