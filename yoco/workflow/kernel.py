"""An IPython extension for notebooks' kernels: they end when the process that started them is gone.

ipykernel watches for that too, but only once it has partly started. If the other process is
killed before that, ipykernel waits until process 1 is its parent, which never happens under a
subreaper (systemd's user sessions, some containers).
"""

import os
import threading
import time

import psutil


def load_ipython_extension(_: object) -> None:
    """Begin to watch. IPython calls this as the kernel starts."""
    if starter := int(os.environ.get("JPY_PARENT_PID", 0)):  # Jupyter sets it
        threading.Thread(target=_end_with, args=(starter,), daemon=True).start()


def _end_with(process: int) -> None:
    while psutil.pid_exists(process):
        time.sleep(1)
    os._exit(1)
