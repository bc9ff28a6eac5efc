"""The table of export formats, as the command line reads it."""

import pytest

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
    values = export(f"--format={name}", *(f"--{option}=1" for option in row.options))
    assert values.format == [name]
    assert all(values[option].value for option in row.options)


@pytest.mark.parametrize(
    ("option", "needs"),
    [
        ("integer_io", "tflite_int8"),
        ("debug_int8", "tflite_int8"),
        ("export_to_tpu", "saved_model"),
        ("web_runtime", "web"),
    ],
)
def test_an_option_of_another_format_is_refused(option, needs):
    others = ",".join(name for name in FORMATS if option not in FORMATS[name].options)
    with pytest.raises(UserError, match=rf"^--{option} needs --format={needs}$"):
        export(f"--format={others}", f"--{option}{VALUES.get(option, '')}")


def test_formats_of_integers_are_calibrated():
    calibrated = [name for name, row in FORMATS.items() if row.calibrated]
    assert calibrated == ["tflite_int8", "onnx_int8", "web_int8"]
    assert [name for name, row in FORMATS.items() if row.is_int8] == ["tflite_int8", "web_int8"]


def test_packages_that_formats_need():
    assert FORMATS["onnx"].requires == ("onnx", "onnxruntime", "tf2onnx")
    extras = {name: row.extra for name, row in FORMATS.items() if row.extra != "export"}
    assert extras == {"openvino": "openvino", "openvino_fp16": "openvino"}
