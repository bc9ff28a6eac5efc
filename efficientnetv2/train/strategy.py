"""Builds the ``tf.distribute`` strategy from the config, and distributes the training input.

A device that the machine lacks is an error. Build the strategy before TensorFlow runs anything
else: afterwards workers can no longer be joined.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

from efficientnetv2.data.shard import Shard
from efficientnetv2.data.train_input import TrainingInput
from efficientnetv2.runtime.cluster import Cluster, ClusterError, find_cluster, tpu_name
from hparams.config import Config
from hparams.errors import UserError, tensorflow_message

HEARTBEAT_SECONDS = 30  # a worker that does not answer for this long counts as dead
_MAX_REASON_LENGTH = 200  # characters of TensorFlow's text in an error message


def _gpus() -> list[str]:
    return [device.name for device in tf.config.list_logical_devices("GPU")]


def _one_device(config: Config) -> tf.distribute.Strategy:
    del config
    return tf.distribute.get_strategy()


def _cpu(config: Config) -> tf.distribute.Strategy:
    del config
    return tf.distribute.OneDeviceStrategy("/cpu:0")


def _gpu(config: Config) -> tf.distribute.Strategy:
    del config
    gpus = _gpus()
    if not gpus:
        raise UserError(
            "runtime.strategy=gpu, but TensorFlow sees no GPU; use runtime.strategy=auto"
        )
    return tf.distribute.MirroredStrategy(gpus)


def _auto(config: Config) -> tf.distribute.Strategy:
    if len(find_cluster("auto").workers) > 1:
        return _multi_worker(config)
    return tf.distribute.MirroredStrategy(_gpus()) if len(_gpus()) > 1 else _one_device(config)


def _multi_worker(config: Config) -> tf.distribute.Strategy:
    seconds = config.runtime.worker_timeout_seconds
    cluster = find_cluster("multi_worker")
    _set_timeouts(seconds=seconds)
    with _silence_server():
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.DeadlineExceededError:
            reason = "one of them is not running, or cannot be reached at this address"
        except (tf.errors.OpError, RuntimeError, ValueError) as error:
            reason = tensorflow_message(str(error), limit=_MAX_REASON_LENGTH)
    raise ClusterError(
        f"worker {cluster.index} ({cluster.workers[cluster.index]}) cannot join the others "
        f"({_others(cluster)}) within runtime.worker_timeout_seconds={seconds}: {reason}"
    )


def _others(cluster: Cluster) -> str:
    return ", ".join(w for i, w in enumerate(cluster.workers) if i != cluster.index)


@contextlib.contextmanager
def _silence_server() -> Iterator[None]:
    """Suppresses what TensorFlow's server prints to stderr regardless of its log level."""
    sys.stderr.flush()
    stderr = os.dup(2)
    _mute_stderr()
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        atexit.register(_mute_stderr)  # the server also complains when the process ends


def _mute_stderr() -> None:
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    os.close(devnull)


def _set_timeouts(*, seconds: int) -> None:
    """Limits how long workers wait for each other at the start; TensorFlow's default is an hour.

    TensorFlow has no public option for this. These are the calls that MultiWorkerMirroredStrategy
    itself makes, with timeouts added.
    """
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    from tensorflow.python.eager import context

    spec = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec()
    jobs = [job for job in ("chief", "worker") if job in spec.jobs]
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{jobs[0]}/replica:0/task:0",
        cluster_register_timeout_in_ms=seconds * 1000,
        heartbeat_timeout_in_ms=HEARTBEAT_SECONDS * 1000,
        shutdown_barrier_timeout_in_ms=HEARTBEAT_SECONDS * 1000,
        coordinated_jobs=[
            coordination_config_pb2.CoordinatedJob(name=job, num_tasks=spec.num_tasks(job))
            for job in jobs
        ],
    )
    # Without this the chief would wait forever in its first exchange with the others.
    context.context().coordination_service.cluster_register_with_barrier = True


def _tpu(config: Config) -> tf.distribute.Strategy:
    runtime = config.runtime
    name = tpu_name(runtime.tpu)
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu=name,
            zone=runtime.tpu_zone,
            project=runtime.gcp_project,
            job_name=runtime.tpu_job_name,
        )
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    # A missing TPU may be reported by TensorFlow or by any of the libraries that look up its name
    # in Google's services; their exceptions have no base class in common.
    except Exception as error:
        reason = tensorflow_message(str(error), limit=_MAX_REASON_LENGTH)
        raise UserError(f"cannot use the TPU '{name}': {reason}") from None


STRATEGIES: dict[str, Callable[[Config], tf.distribute.Strategy]] = {
    "auto": _auto,
    "none": _one_device,
    "cpu": _cpu,
    "gpu": _gpu,
    "multi_worker": _multi_worker,
    "tpu": _tpu,
}


def build_strategy(config: Config) -> tf.distribute.Strategy:
    """Builds the strategy that ``runtime.strategy`` selects.

    Raises:
      UserError: if the machine does not have the requested devices.
    """
    return STRATEGIES[config.runtime.strategy](config)


def needs_fixed_shapes(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether the step is compiled for each image size, as XLA does on a TPU."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def shard_of(context: tf.distribute.InputContext) -> Shard:
    """Returns the shard of each batch that an input pipeline of TensorFlow has to deliver."""
    pipelines = context.num_input_pipelines
    return Shard(context.input_pipeline_id, pipelines, context.num_replicas_in_sync // pipelines)


def distribute_training(
    strategy: tf.distribute.Strategy, training_input: TrainingInput, *, start_step: int
) -> Iterable:
    """Returns batches that give each replica its own rows of every global batch.

    Args:
      strategy: the devices. If it ``needs_fixed_shapes``, all batches must have the shape of the
        first one; call this function again where the shape changes.
      training_input: the input of the whole training.
      start_step: the step that the first batch is for.
    """

    def build_dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
        shard = shard_of(context)
        batches = training_input.batches(start_step=start_step, shard=shard)
        if needs_fixed_shapes(strategy):
            settings = training_input.settings.mean(start_step, start_step + 1)
            num_pieces = training_input.microbatches * shard.count * shard.replicas
            rows = int(settings["batch_size"]) // num_pieces
            batches = _fix_shapes(batches, rows=rows, size=int(settings["image_size"]))
        # Without this, workers would ask each other at each step whether a data set has ended.
        return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    return strategy.distribute_datasets_from_function(build_dataset)


def _fix_shapes(batches: tf.data.Dataset, *, rows: int, size: int) -> tf.data.Dataset:
    @tf.autograph.experimental.do_not_convert
    def fix(images: tf.Tensor, *others: tf.Tensor) -> tuple[tf.Tensor, ...]:
        fixed = [tf.ensure_shape(tensor, [rows, *tensor.shape[1:]]) for tensor in others]
        return (tf.ensure_shape(images, [rows, size, size, images.shape[-1]]), *fixed)

    return batches.map(fix)
