// What `profl-train --help` and `--version` print.
#pragma once

namespace profl {

constexpr char kVersion[] = "profl-train " PROFL_VERSION "\n";

constexpr char kHelp[] =
    R"(Usage: profl-train BUNDLE --data DATA [OPTIONS]

Train one block of BUNDLE and write the update: what `profl-edge train` does, without Python.
With --evaluate, print accuracy and loss of the model up to a block instead, as `profl-edge eval` does.

  --block N             block to train, counted from 1 [default: the bundle's only training step, if it has one]
  --first-block N       train the blocks from this one to --block together
  --purpose KIND        grow, or distill into its stand-in [default: grow]
  --work NAME           instead of --block: a step by its units, as joint-units3-8
  --variant NAME        with --work: recompute, bfloat16, micro2 or micro4
  --data DATA           idx:DIR, fashion-mnist:DIR (plain files) or npz:FILE (of numpy.savez)
  --steps N             number of training steps
  --epochs X            passes over the data [default: 1]
  --max-seconds X       stop after the step that exceeds this time, and write the update
  --lr X                learning rate [default: that of profl-edge train]
  --proximal-mu X       factor of FedProx's proximal term
  --augment crop-flip   random crops and flips; --augment-seed N, --augment-epoch N
  --seed N              seed of the order of examples [default: 0]
  --weights FILE        safetensors laid over the bundle's weights; may be repeated
  --initial-prefix      keep the bundle's initial values for blocks that are in no --weights file
  -o FILE               update to write (safetensors)
  --base-version TEXT   name of the starting weights [default: their digest]
  --memory-limit SIZE   hard limit, as 96MB: refused where the promise is above it, then held by a control group, or by
                        RLIMIT_DATA where none can be made
  --threads N           [default: the physical cores]
  --checkpoint-every N  steps between checkpoints; 0: only when stopped [default: 100]
  --resume              continue from the checkpoint beside the output, if there is one
  --json                print one JSON object
  --evaluate            up to --block [default: the last], on the part of the data for testing
  --split PART          with --evaluate: test or train [default: test]
  --version, --help

Example: profl-train bundle --block 2 --data idx:data --memory-limit 128MB -o update.safetensors
         profl-train bundle --evaluate --block 2 --data idx:data --weights update.safetensors
)";

}  // namespace profl
