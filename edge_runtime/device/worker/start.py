"""`python -I -S start.py FD [check]`: the entry of the training process; the job is read from the open file FD."""

import os
import sys

# Neither the environment nor site-packages say where packages lie: this file's own place does.
sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), *[os.pardir] * 3)))

from edge_runtime.device.worker.run import main

sys.exit(main(int(sys.argv[1]), check_only=sys.argv[2:] == ["check"]))
