"""A device choice in; a ``tf.distribute.Strategy`` and the input of its replicas out.

What the machine lacks is an error. A strategy is built before anything else of TensorFlow runs:
several workers cannot be joined later.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

from efficientnetv2.data.pipeline import TrainingInput
from efficientnetv2.data.share import Share
from efficientnetv2.train.cluster import Cluster, ClusterError, find_cluster, tpu_name
from hparams.errors import UserError
from hparams.resolve import Config

HEARTBEAT_SECONDS = 30  # after which a worker that does not answer is taken for dead


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
        raise UserError("runtime.strategy is gpu, but TensorFlow sees no GPU; give auto")
    return tf.distribute.MirroredStrategy(gpus)


def _auto(config: Config) -> tf.distribute.Strategy:
    if len(find_cluster("auto").workers) > 1:
        return _multi_worker(config)
    return tf.distribute.MirroredStrategy(_gpus()) if len(_gpus()) > 1 else _one_device(config)


def _multi_worker(config: Config) -> tf.distribute.Strategy:
    seconds = config.runtime.worker_timeout_seconds
    cluster = find_cluster("multi_worker")
    _limit_waiting(seconds=seconds)
    with _quiet_server():
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.DeadlineExceededError:
            reason = "one is not started, or cannot be reached there"
        except (tf.errors.OpError, RuntimeError, ValueError) as error:
            reason = short(error)
    raise ClusterError(
        f"worker {cluster.index} ({cluster.workers[cluster.index]}) cannot join the others "
        f"({_others(cluster)}) within runtime.worker_timeout_seconds={seconds}: {reason}"
    )


def _others(cluster: Cluster) -> str:
    return ", ".join(w for i, w in enumerate(cluster.workers) if i != cluster.index)


@contextlib.contextmanager
def _quiet_server() -> Iterator[None]:
    """Keeps off stderr what TensorFlow's server writes there, whatever the level of its log."""
    sys.stderr.flush()
    stderr = os.dup(2)
    _mute_stderr()
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        atexit.register(_mute_stderr)  # it also complains that it cannot be shut down


def _mute_stderr() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _limit_waiting(*, seconds: int) -> None:
    """Tells TensorFlow how long workers wait for each other; by itself it waits for an hour.

    TensorFlow has no public switch for it: this is what MultiWorkerMirroredStrategy itself calls,
    with timeouts.
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
    # Or the chief would wait for ever, in its first exchange with the others.
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
    # What a missing TPU raises depends on where it is missing: the machine, or any of the libraries
    # that ask Google's services for its name. They have no class in common.
    except Exception as error:
        raise UserError(f"cannot use the TPU '{name}': {short(error)}") from None


STRATEGIES: dict[str, Callable[[Config], tf.distribute.Strategy]] = {
    "auto": _auto,
    "none": _one_device,
    "cpu": _cpu,
    "gpu": _gpu,
    "multi_worker": _multi_worker,
    "tpu": _tpu,
}


def build_strategy(config: Config) -> tf.distribute.Strategy:
    """Opens the section ``runtime`` for the devices.

    Raises:
      UserError: if the devices that were asked for are not there.
    """
    return STRATEGIES[config.runtime.strategy](config)


def needs_fixed_shapes(strategy: tf.distribute.Strategy) -> bool:
    """Whether the devices compile the step for each image size (XLA on a TPU)."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def share_of(context: tf.distribute.InputContext) -> Share:
    """Returns what one input pipeline has to give: TensorFlow's terms in ours."""
    pipelines = context.num_input_pipelines
    return Share(context.input_pipeline_id, pipelines, context.num_replicas_in_sync // pipelines)


def distribute_training(
    strategy: tf.distribute.Strategy, training_input: TrainingInput, *, start_step: int
) -> Iterable:
    """Feeds each replica its own rows of every global batch.

    Args:
      strategy: the devices. Where it ``needs_fixed_shapes``, the batches have the size of the first
        one and serve as long as that is right.
      training_input: the stream.
      start_step: as in ``TrainingInput.batches``.
    """

    def of_process(context: tf.distribute.InputContext) -> tf.data.Dataset:
        share = share_of(context)
        batches = training_input.batches(start_step=start_step, share=share)
        if needs_fixed_shapes(strategy):
            settings = training_input.settings.mean(start_step, start_step + 1)
            pieces = training_input.parts * share.count * share.replicas
            rows = int(settings["batch_size"]) // pieces
            batches = _fixed(batches, rows=rows, size=int(settings["image_size"]))
        # The stream has no end. Told so, workers need not ask each other at each step.
        return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    return strategy.distribute_datasets_from_function(of_process)


def _fixed(batches: tf.data.Dataset, *, rows: int, size: int) -> tf.data.Dataset:
    @tf.autograph.experimental.do_not_convert
    def fix(images: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        shape = [rows, targets.shape[-1]]
        return tf.ensure_shape(images, [rows, size, size, 3]), tf.ensure_shape(targets, shape)

    return batches.map(fix)


def short(error: Exception) -> str:
    """Returns the beginning of an error's message, on one line, without TensorFlow's places."""
    text = re.sub(r"\{\{.*?\}\} ?", "", " ".join(str(error).split()))
    return text.partition(" Additional GRPC error")[0][:200]
