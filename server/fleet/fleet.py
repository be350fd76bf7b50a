"""The fleet file: what one TOML document says of the model, the data, the devices and the way they train."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_profiles.errors import UsageError
from device_profiles.optimizers import OPTIMIZERS, OptimizerName
from device_profiles.trades import Variants
from server.fleet.model import ModelSettings
from server.fleet.population import ClassSettings, ClientSettings, PopulationSettings, Positive, drawn, limits_mb
from server.fleet.privacy import PrivacySettings
from server.fleet.virtual import PromiseSettings, SimulationSettings

Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class DataSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The data set and how it is cut into the clients' parts.

    Attributes:
        sources: tried in order, so that a demo can prefer a set that is not on every machine.
        split: see `split_indices` in `data/split.py`; `natural` gives each device one of the data set's own clients.
        alpha: of the Dirichlet split; the smaller, the fewer classes a client has.
        shards_per_client: of the split by shards.
        min_examples: what every client has at least.
        examples_per_client: more than these are left out.
        test_examples: of the test split, drawn in proportion to its classes, for evaluations between rounds.
    """

    sources: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    split: Literal["iid", "shards", "dirichlet", "natural"] = "iid"
    alpha: Annotated[float, msgspec.Meta(gt=0)] = 0.5
    shards_per_client: Positive = 2
    min_examples: Positive = 1
    examples_per_client: Positive | None = None
    test_examples: Positive | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a cap below the minimum; msgspec reports it with the field's path."""
        if self.examples_per_client is not None and self.examples_per_client < self.min_examples:
            raise ValueError(
                f"examples_per_client {self.examples_per_client} is below min_examples {self.min_examples}"
            )


class TrainingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Local training of a round, and what the server makes of it.

    Attributes:
        steps: local steps of a round ...
        epochs: ... or epochs over the client's examples, instead of `steps`.
        optimizer: of the clients; `momentum`, `nesterov` and `momentum_dtype` belong to `sgd`, `beta1`, `beta2` and
            `eps` to `adamw`.
        schedule: how the learning rate falls over the rounds of a stage; `milestones` belong to `step`.
        warmup_rounds: it rises to full over the first rounds of a stage. What a stage starts from was trained for
            something else, and stand-ins have no normalisation that would hold back a large step.
        clip_norm: largest norm of all gradients of a step together, 0 for any.
        proximal: FedProx's mu, 0 without that term.
        augment: crops with padding 4 and flips, on the client.
        max_seconds: engine `local`: a client stops after the step that takes longer in all and sends what it has,
            which counts by the share of its work that was done; 0 for no end.
        cache_prefix: engine `local`: clients that hold it keep what frozen blocks put out in a file of this type while
            a stage lasts. It pays where a stage visits an example more than once; engine `simulation` decides by
            `simulation.cache_mb`.
        rounds: round budget of the whole run; ProFL may do without one.
        clients_per_round: drawn anew every round among those with work; all of them by default.
        spare: drawn beside them; an attempt ends when `clients_per_round` have delivered, and waits for no other.
        download_mbit, upload_mbit: megabits that a client is taken to receive and send in a second, where the planner
            compares how long steps take.
        evaluate_every: rounds between two evaluations; the last round of a stage always has one.
        aggregation: `robust` holds the updates of a round against each other before they are averaged; `mean` does not.
            `trimmed_mean` and `median` take each value alone, and every client for one.
        trim: of `trimmed_mean`, the share of the values that are left out at either end.
        min_clients: a round counts when as many deliver; else it is repeated, `attempts` times in all.
        deadline_seconds: what an attempt at a round waits for answers, None for as long as they take; who misses it has
            failed, and its late update is refused.
        join_seconds: engine `flower`: what the start waits for more devices when `min_clients` are there.
        absent_seconds: engine `flower`: what an attempt waits where fewer than `min_clients` have work.
        server_optimizer: how the clients' mean becomes the next weights; its options begin with `server_`, those of the
            adaptive ones as Reddi et al. (ICLR 2021) call them.
        server_learning_rate: by default 1 for `fedavg`, the mean itself, and 0.01 for the others.
    """

    steps: Positive = 20
    epochs: Positive | None = None
    learning_rate: Annotated[float, msgspec.Meta(gt=0)] = OPTIMIZERS["sgd"].learning_rate
    schedule: Literal["constant", "cosine", "step"] = "constant"
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    warmup_rounds: Annotated[int, msgspec.Meta(ge=0)] = 0
    optimizer: OptimizerName = "sgd"
    momentum: Fraction = 0.9
    nesterov: bool = False
    momentum_dtype: Literal["float32", "bfloat16"] = "float32"
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    eps: Annotated[float, msgspec.Meta(ge=0)] = 1e-8
    weight_decay: Annotated[float, msgspec.Meta(ge=0)] = 5e-4
    clip_norm: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    proximal: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    augment: Literal["none", "crop-flip"] = "none"
    cache_prefix: Literal["none", "float32", "float16", "int8"] = "none"
    rounds: Positive | None = None
    clients_per_round: Positive | None = None
    spare: Annotated[int, msgspec.Meta(ge=0)] = 0
    download_mbit: Annotated[float, msgspec.Meta(gt=0)] = 20.0
    upload_mbit: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    evaluate_every: Positive = 1
    seed: int = 0
    threads: Positive = 1
    parallel: Positive = 2
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0)] = 600.0
    max_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    aggregation: Literal["robust", "mean", "trimmed_mean", "median"] = "robust"
    trim: Annotated[float, msgspec.Meta(ge=0, lt=0.5)] = 0.1
    min_clients: Positive = 1
    attempts: Positive = 3
    deadline_seconds: Annotated[float, msgspec.Meta(gt=0)] | None = None
    join_seconds: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    absent_seconds: Annotated[float, msgspec.Meta(ge=0)] = 600.0
    server_optimizer: Literal["fedavg", "fedadam", "fedyogi"] = "fedavg"
    server_learning_rate: Annotated[float, msgspec.Meta(gt=0)] | None = None
    server_beta1: Fraction = 0.9
    server_beta2: Fraction = 0.99
    server_tau: Annotated[float, msgspec.Meta(gt=0)] = 1e-3


HeldFrozen = Literal["left-out", "unchanged", "damped"]
"""How clients count in the average of a tensor that they held frozen: not at all; with its old value; or between the
two (`server.averaging.server_step`)."""


class MethodSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the fleet trains: planned, ProFL, elastic ProFL, or one of the methods that they are compared with
    (`simulation`).

    Attributes:
        coverage: of method `planned`, the share of the clients that each unit is trained by, so far as that can be;
            None is the planner's own choice.
        counts_frozen: of methods `planned` and `elastic`, whether a tensor counts as unchanged in the average for the
            clients that held it frozen; if false it is averaged over those alone who trained it. None is the method's
            own choice: it counts in `elastic`, and `planned` is between the two.
        variants: of method `planned`, those of a piece of work that clients may do: `exact` ones alone keep the result.
        shrinking: ProFL's first stage, with `shrink_rounds` and `distill_rounds` for every block.
        freezing: by effective movement, or equal rounds for every step.
        distill_learning_rate: of distillation; that of the authors' example.
    """

    name: Literal[
        "profl",
        "elastic",
        "planned",
        "finetune",
        "fedavg",
        "exclusivefl",
        "allsmall",
        "heterofl",
        "depthfl",
        "fedpmt",
        "fedplt",
    ] = "profl"
    coverage: Fraction | None = None
    counts_frozen: bool | None = None
    variants: Variants = "exact"
    shrinking: bool = False
    shrink_rounds: Positive = 5
    distill_rounds: Positive = 2
    distill_learning_rate: Annotated[float, msgspec.Meta(gt=0)] = 1e-5
    freezing: Literal["movement", "equal"] = "movement"


class FreezingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a block is frozen by effective movement (Wu, Li, Xu, KDD 2025); defaults after the authors' example.

    Attributes:
        window: H, rounds over which movement is compared with its path.
        fit_length: recent values that the line is fitted to.
        threshold: freeze while the absolute slope of the line (per round) stays under it ...
        patience: ... for this many evaluations in a row (W) ...
        fall: ... and movement is no more than this share of its largest value so far. 1 is the published rule, and the
            default of `profl` and `elastic`: movement is also flat while every parameter still goes one way, in a block
            that has hardly begun.
        level: ... and movement is no more than this. With it `planned` asks for no `fall` by itself.
        scalars: sampled parameters, all of them if there are fewer.
        max_rounds: round cap of a step.
        min_rounds: no freezing before this many rounds.
    """

    window: Positive = 6
    fit_length: Annotated[int, msgspec.Meta(ge=2)] = 5
    threshold: Annotated[float, msgspec.Meta(gt=0)] = 0.02
    patience: Positive = 3
    fall: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    level: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    scalars: Positive = 10_000
    max_rounds: Positive = 50
    min_rounds: Positive = 1
    seed: int = 0


class Fleet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """The whole file: clients one by one (`named`, the file's `clients`), or a `population`, which may be of `classes`.

    `margin` is added to what a client needs before it is compared with its limit: the part of the peak that may differ
    between two runs.
    """

    model: ModelSettings
    data: DataSettings
    named: tuple[ClientSettings, ...] = msgspec.field(default=(), name="clients")
    population: PopulationSettings | None = None
    classes: tuple[ClassSettings, ...] = ()
    method: MethodSettings = MethodSettings()
    training: TrainingSettings = TrainingSettings()
    freezing: FreezingSettings = FreezingSettings()
    promises: PromiseSettings = PromiseSettings()
    simulation: SimulationSettings = SimulationSettings()
    privacy: PrivacySettings | None = None
    margin: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05

    @cached_property
    def clients(self) -> tuple[ClientSettings, ...]:
        """Every client, an object each: slow for a million, who have `client_count` and `budgets`."""
        return self.named if self.population is None else drawn(self.population, self.classes)

    @property
    def client_count(self) -> int:
        """How many clients there are."""
        return len(self.named) if self.population is None else self.population.count

    @property
    def budgets(self) -> NDArray[np.int64]:
        """What each client may use, in bytes, in their order."""
        if self.population is None:
            return np.array([client.limit_bytes for client in self.named], np.int64)
        return limits_mb(self.population, self.classes) << 20

    @property
    def origin(self) -> str:
        """What errors call it: the option and the file where it was read from one. No part of its value."""
        origin: str = self.__dict__.get("origin_text", "fleet file")
        return origin

    @property
    def folder(self) -> Path | None:
        """Where it was read from, None where it was not. No part of its value."""
        folder: Path | None = self.__dict__.get("folder_read")
        return folder

    def with_min_clients(self, count: int) -> Fleet:
        """The same fleet, of the same file, whose rounds need `count` clients."""
        changed = msgspec.structs.replace(self, training=msgspec.structs.replace(self.training, min_clients=count))
        changed.__dict__.update(self.__dict__)
        return changed

    def contradiction(self) -> UsageError | None:
        """What no round of such a fleet can meet, with the key and the remedy."""
        training, clients = self.training, self.client_count
        needed, drawn = training.min_clients, training.clients_per_round
        if clients and needed > clients:
            return UsageError(
                f"the fleet has {clients} clients",
                field="training.min_clients",
                value=needed,
                remedy="ask for fewer",
            )
        if drawn is not None and needed > drawn:
            return UsageError(
                f"training.clients_per_round draws {drawn} each round",
                field="training.min_clients",
                value=needed,
                remedy="ask for fewer, or draw more",
            )
        if training.spare and drawn is None:
            return UsageError(
                "every client is drawn already",
                field="training.spare",
                value=training.spare,
                remedy="give training.clients_per_round as well",
            )
        if training.max_seconds >= training.timeout_seconds:
            return UsageError(
                f"clients are ended after training.timeout_seconds {training.timeout_seconds:g}",
                field="training.max_seconds",
                value=f"{training.max_seconds:g}",
                remedy="give less",
            )
        return None
