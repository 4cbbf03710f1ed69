"""A second daemon on a rig's Redis, as if it ran on another machine: another run directory, so other workers' names.

Host(rig, name) starts it and waits until it serves; requests go to its own FastCGI socket. Everything that rig.Rig
offers for its daemon is there: workers(), front(), kill(), submit(), job(), wait_job(). kill_all() is the loss of a machine.
"""

import json
import os
import pathlib
import signal

import rig as rigs


class Host(rigs.Rig):
    def __init__(self, rig, name, workers=1, config=None):
        self.rig, self.folder = rig, rig.folder / name
        self.folder.mkdir()
        self.socket = str(self.folder / "m.sock")
        self.redis, self.sim, self.killed = rig.redis, rig.sim, rig.killed
        self.has_lighttpd = False
        self.file = str(self.folder / "millrace.json")
        self.config = rigs.merged({**rig.config, "listen": f"unix:{self.socket}", "workers": workers}, config or {})
        pathlib.Path(self.file).write_text(json.dumps(self.config, indent=2))
        self.daemon = rigs.Process(
            name, [rigs.BUILD / "bin" / "millrace-fcgi", "-c", self.file], rig.folder / "log" / f"{name}.log",
            env={**rigs.marked(rig.folder), **rig.env}, cwd=rig.folder)
        try:
            rigs.Inotify.until_exists(self.socket, self.daemon)
            self.until_ready()
            for i in range(1, workers + 1):
                self.daemon.wait_line(f"worker {i}: ready")
        except BaseException:
            self.close()
            raise

    @property
    def config_file(self):
        return self.file

    def http(self, method, path, body=None, headers=None, patience=rigs.PATIENCE + 15, **_):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        return self.fcgi(method, path, body or b"", headers=headers, patience=patience)

    def pids(self):
        return [self.daemon.pid, *rigs.children_of(self.daemon.pid)]

    def kill_all(self, number=signal.SIGKILL):
        """Every process of it at once: they are a process group."""
        pids = self.pids()
        self.killed.update(pids)
        os.killpg(self.daemon.pid, number)
        if number == signal.SIGKILL:
            for pid in pids:
                if pid != self.daemon.pid:
                    rigs.until_gone(pid)
            self.daemon.stop()

    def close(self, check=True):
        if self.daemon.is_alive():
            os.killpg(self.daemon.pid, signal.SIGCONT)
            self.daemon.stop(patience=60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
