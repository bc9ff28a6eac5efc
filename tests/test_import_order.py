"""Every file imports only from files that stand above it in ORDER; none is missing there."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

ORDER = [
    "hparams.errors",
    "hparams.registry",
    "hparams.preprocess",
    "hparams.blocks",
    "hparams.architecture",
    "hparams.key",
    "hparams.search_keys",
    "hparams.base",
    "hparams.document",
    "hparams.overrides",
    "hparams.models",
    "hparams.ablations",
    "hparams.fine_tuning",
    "hparams.datasets",
    "hparams.search",
    "hparams.combinations",
    "hparams.weights",
    "hparams.resolve",
    "hparams.scaling",
    "hparams",
    "efficientnetv2.quiet",
    "efficientnetv2.image_files",
    "efficientnetv2.data.digits",
    "efficientnetv2.data.sources.errors",
    "efficientnetv2.data.sources.scan",
    "efficientnetv2.data.sources.listing",
    "efficientnetv2.data.sources.shards",
    "efficientnetv2.data.sources.base",
    "efficientnetv2.data.sources.folder",
    "efficientnetv2.data.sources.records",
    "efficientnetv2.data.sources.builders",
    "efficientnetv2.data.sources.tfds",
    "efficientnetv2.data.sources.opening",
    "efficientnetv2.data.sources",
    "efficientnetv2.data.orientation",
    "efficientnetv2.data.encoded",
    "efficientnetv2.data.decode",
    "efficientnetv2.data.geometry",
    "efficientnetv2.data.ops",
    "efficientnetv2.data.official_ops",
    "efficientnetv2.data.augment",
    "efficientnetv2.data.preprocess",
    "efficientnetv2.data.mix",
    "efficientnetv2.data.settings",
    "efficientnetv2.data.share",
    "efficientnetv2.data.training_image",
    "efficientnetv2.data.service",
    "efficientnetv2.data.targets",
    "efficientnetv2.data.broken",
    "efficientnetv2.data.pipeline",
    "efficientnetv2.data.evaluation",
    "efficientnetv2.data",
    "efficientnetv2.model.kernels",
    "efficientnetv2.model.normalization",
    "efficientnetv2.model.layers",
    "efficientnetv2.model.blocks",
    "efficientnetv2.model.network",
    "efficientnetv2.model.baselines",
    "efficientnetv2.model.checkpoints.errors",
    "efficientnetv2.model.checkpoints.parts",
    "efficientnetv2.model.checkpoints.official",
    "efficientnetv2.model.checkpoints.torch_names",
    "efficientnetv2.model.checkpoints.torch_file",
    "efficientnetv2.model.checkpoints.safetensors_file",
    "efficientnetv2.model.checkpoints.keras_file",
    "efficientnetv2.model.checkpoints.tensorflow_file",
    "efficientnetv2.model.checkpoints.reading",
    "efficientnetv2.model.checkpoints.loading",
    "efficientnetv2.model.checkpoints.writing",
    "efficientnetv2.model.checkpoints.download",
    "efficientnetv2.model.checkpoints",
    "efficientnetv2.model.pretrained",
    "efficientnetv2.model.factory",
    "efficientnetv2.model.checkpoints.__main__",
    "efficientnetv2.model.complexity",
    "efficientnetv2.model.parts",
    "efficientnetv2.model.folding",
    "efficientnetv2.model",
    "efficientnetv2",
    "efficientnetv2.train.losses",
    "efficientnetv2.train.metrics",
    "efficientnetv2.train.stages",
    "efficientnetv2.train.sizes",
    "efficientnetv2.train.schedules",
    "efficientnetv2.train.optimizers",
    "efficientnetv2.train.ema",
    "efficientnetv2.train.cluster",
    "efficientnetv2.train.strategy",
    "efficientnetv2.train.learner",
    "efficientnetv2.train.step",
    "efficientnetv2.train.profile",
    "efficientnetv2.train.durable",
    "efficientnetv2.train.stopping",
    "efficientnetv2.train.lock",
    "efficientnetv2.train.patience",
    "efficientnetv2.train.run_directory",
    "efficientnetv2.train.workers",
    "efficientnetv2.train.checkpoint_files",
    "efficientnetv2.train.saving",
    "efficientnetv2.train.divergence",
    "efficientnetv2.train.summaries",
    "efficientnetv2.train.observer",
    "efficientnetv2.train.loop",
    "efficientnetv2.train",
    "efficientnetv2.trained",
    "efficientnetv2.following",
    "efficientnetv2.answers",
    "efficientnetv2.evaluate",
    "efficientnetv2.infer",
    "efficientnetv2.explain",
    "efficientnetv2.preview",
    "efficientnetv2.export.servable",
    "efficientnetv2.export.saved_model",
    "efficientnetv2.export.ranges",
    "efficientnetv2.export.rounding",
    "efficientnetv2.export.arithmetic",
    "efficientnetv2.export.quantised",
    "efficientnetv2.export.litert_metadata",
    "efficientnetv2.export.litert",
    "efficientnetv2.export.onnx_file",
    "efficientnetv2.export.images",
    "efficientnetv2.export.writing",
    "efficientnetv2.export.verify",
    "efficientnetv2.export",
    "efficientnetv2.report.plots",
    "efficientnetv2.report.pictures",
    "efficientnetv2.report.tables",
    "efficientnetv2.report.predictions",
    "efficientnetv2.report.results",
    "efficientnetv2.report.answers",
    "efficientnetv2.report.benchmark",
    "efficientnetv2.report.search",
    "efficientnetv2.opening",
    "efficientnetv2.validate",
    "efficientnetv2.answering",
    "efficientnetv2.report.progress",
    "efficientnetv2.report",
    "efficientnetv2.preflight",
    "efficientnetv2.search",
    "efficientnetv2.search.storage",
    "efficientnetv2.flags",
    "efficientnetv2.modes",
    "efficientnetv2.evaluating",
    "efficientnetv2.predicting",
    "efficientnetv2.exporting",
    "efficientnetv2.costs",
    "efficientnetv2.benchmarking",
    "efficientnetv2.search.attributes",
    "efficientnetv2.search.space",
    "efficientnetv2.search.reward",
    "efficientnetv2.search.samplers",
    "efficientnetv2.search.device",
    "efficientnetv2.search.timing",
    "efficientnetv2.search.messages",
    "efficientnetv2.search.training",
    "efficientnetv2.search.trial",
    "efficientnetv2.search.runner",
    "efficientnetv2.search.study",
    "efficientnetv2.search.claims",
    "efficientnetv2.search.outcome",
    "efficientnetv2.search.engine",
    "efficientnetv2.asked",
    "efficientnetv2.commands",
    "efficientnetv2.cli",
    "main_tf2",
    "main",
]

# Folders that must not know each other, whatever their order.
STRANGERS = {
    "efficientnetv2.data": ("efficientnetv2.model", "efficientnetv2.train"),
    "efficientnetv2.model": ("efficientnetv2.data", "efficientnetv2.train"),
    "hparams": ("efficientnetv2",),
}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATTERNS = ("hparams/**/*.py", "efficientnetv2/**/*.py", "main*.py")
FILES = {module_name(path): path for pattern in PATTERNS for path in ROOT.glob(pattern)}


def imported(path):
    """Own modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            children = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = children & set(FILES)
            names.update(modules or {node.module})
    return {name for name in names if name in FILES}


def test_every_file_has_its_place():
    assert sorted(FILES) == sorted(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_imports_only_from_above(module):
    above = set(ORDER[: ORDER.index(module)])
    assert imported(FILES[module]) <= above


@pytest.mark.parametrize("folder", STRANGERS)
def test_strangers(folder):
    for module, path in FILES.items():
        if module == folder or module.startswith(f"{folder}."):
            assert not [n for n in imported(path) if n.startswith(STRANGERS[folder])], module


@pytest.mark.parametrize(
    "statement",
    ["import hparams", "from efficientnetv2 import list_models", "import efficientnetv2.cli"],
)
def test_tensorflow_stays_away(statement):
    code = f"{statement}; import sys; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_files_and_functions_stay_small():
    for path in [*FILES.values(), *ROOT.glob("tests/**/*.py")]:
        text = path.read_text()
        assert len(text.splitlines()) < 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = node.end_lineno - body[0].lineno + 1 if body else 0
                assert lines <= 45, f"{path}: {node.name} has {lines} lines"
