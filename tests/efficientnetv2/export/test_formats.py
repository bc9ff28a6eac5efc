"""The table of export formats, as the command line reads it."""

import pytest

from efficientnetv2.commands.flag_table import FLAGS
from efficientnetv2.commands.flag_values import define_flags
from efficientnetv2.export.formats import FORMATS
from efficientnetv2.flags import parse
from hparams.errors import UserError

VALUES = {"web_runtime": "=folder", "serving_dir": "=folder"}  # of the options that take one


def export(*flags: str):
    return parse(define_flags({}), ["main_tf2.py", "--mode=export", *flags])


def test_files_of_two_formats_never_have_one_name():
    suffixes = [row.suffix for row in FORMATS.values()]
    assert len(set(suffixes)) == len(suffixes)


@pytest.mark.parametrize("name", FORMATS)
def test_the_command_line_takes_each_format_with_its_options(name):
    row = FORMATS[name]
    given = {option: "" if FLAGS[option].default is False else "=1" for option in row.options}
    values = export(f"--format={name}", *(f"--{option}{value}" for option, value in given.items()))
    assert values.format == [name]
    assert all(values[option].value != FLAGS[option].default for option in row.options)


@pytest.mark.parametrize(
    ("option", "needs"),
    [
        ("integer_io", "tflite_int8"),
        ("debug_int8", "tflite_int8"),
        ("export_to_tpu", "saved_model"),
        ("web_runtime", "web"),
        ("max_loss=3", "tflite_auto"),
    ],
)
def test_an_option_of_another_format_is_refused(option, needs):
    flag = option.partition("=")[0]
    others = ",".join(name for name in FORMATS if flag not in FORMATS[name].options)
    with pytest.raises(UserError, match=rf"^--{flag} needs --format={needs}$"):
        export(f"--format={others}", f"--{option}{VALUES.get(option, '')}")


def test_formats_of_integers_are_calibrated():
    calibrated = [name for name, row in FORMATS.items() if row.calibrated]
    assert calibrated == ["tflite_int8", "tflite_int16x8", "tflite_auto", "onnx_int8", "web_int8"]
    whole = [name for name, row in FORMATS.items() if row.is_integer]
    assert whole == ["tflite_int8", "tflite_int16x8", "web_int8"]


def test_packages_that_formats_need():
    assert FORMATS["onnx"].requires == ("onnx", "onnxruntime", "tf2onnx")
    extras = {name: row.extra for name, row in FORMATS.items() if row.extra != "export"}
    assert extras == {"openvino": "openvino", "openvino_fp16": "openvino"}
