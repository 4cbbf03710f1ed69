"""A primary, its replicas and the sentinels that watch over them: real programs, with the configuration that ships
(conf/sentinel), on ports that the kernel gave, each in a folder of its own below the rig's.

    with Replicated(folder, replicas=1) as group: rig config {"redis": {"url": group.url}}

Servers are numbered from 0, which is the first primary. Nothing is waited for by the clock: logs are awaited, servers asked."""

import pathlib
import signal
import socket
import time

import redis as redis_library

from rig import PATIENCE, Process, ROOT, marked

NAME = "millrace"


def free_ports(count):
    """Ports that nobody listens on; all are held until all are known, so that they differ."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def exchanged(text, pairs):
    """The text with each of the first replaced, which must be there."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


class Replicated:
    def __init__(self, folder, replicas=1, sentinels=3, min_replicas=0, down_after_ms=500, program="redis-server"):
        self.folder, self.program, self.down_after_ms = pathlib.Path(folder), program, down_after_ms
        self.min_replicas = min_replicas
        ports = free_ports(1 + replicas + sentinels)
        self.ports, self.sentinel_ports = ports[: 1 + replicas], ports[1 + replicas:]
        self.servers = [None] * (1 + replicas)
        self.sentinels = [None] * sentinels
        self.url = "sentinel://" + ",".join(f"localhost:{port}" for port in self.sentinel_ports) + f"/{NAME}"

    def __enter__(self):
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for number in range(len(self.servers)):
                self.start_server(number)
            for number in range(len(self.sentinels)):
                self.start_sentinel(number)
            self.until(self.is_whole, "a primary with its replicas, known to all sentinels")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.sentinels + self.servers:
            if process:
                if process.is_alive():
                    process.send(signal.SIGCONT)
                process.stop(signal.SIGKILL)

    # ---- programs ----

    def start_server(self, number):
        """As conf/sentinel/redis.conf has it. One that was here before keeps what the sentinels wrote into its file."""
        home = self.folder / f"server{number}"
        conf = home / "redis.conf"
        if not conf.exists():
            home.mkdir()
            text = exchanged((ROOT / "conf" / "sentinel" / "redis.conf").read_text(), [
                ("include /etc/millrace/redis.conf", f"include {ROOT}/conf/redis/redis.conf"),
                ("min-replicas-to-write 1", f"min-replicas-to-write {self.min_replicas}"),
                ("bind 127.0.0.1 -::1", "bind 127.0.0.1"),
            ])
            text += f"\nport {self.ports[number]}\ndir {home}\n"
            if number > 0:
                text += f"replicaof 127.0.0.1 {self.ports[0]}\n"
            conf.write_text(text)
        self.servers[number] = Process(f"redis-server {number}", [self.program, conf], home / "redis.log",
                                       env=marked(self.folder), cwd=home)
        self.servers[number].wait_line("Ready to accept connections|ready to accept connections at")

    def start_sentinel(self, number):
        home = self.folder / f"sentinel{number}"
        conf = home / "sentinel.conf"
        if not conf.exists():
            home.mkdir()
            conf.write_text(exchanged((ROOT / "conf" / "sentinel" / "sentinel.conf").read_text(), [
                ("port 26379", f"port {self.sentinel_ports[number]}"),
                ("bind 127.0.0.1 -::1", "bind 127.0.0.1"),
                ("dir /var/lib/redis", f"dir {home}"),
                ("127.0.0.1 6379 2", f"127.0.0.1 {self.ports[0]} {len(self.sentinels) // 2 + 1}"),
                ("down-after-milliseconds millrace 5000", f"down-after-milliseconds millrace {self.down_after_ms}"),
                ("failover-timeout millrace 60000", "failover-timeout millrace 3000"),
            ]))
        self.sentinels[number] = Process(f"redis-sentinel {number}", ["redis-sentinel", conf], home / "sentinel.log",
                                         env=marked(self.folder), cwd=home)
        self.sentinels[number].wait_line(r"\+monitor master")

    def kill(self, number):
        self.servers[number].stop(signal.SIGKILL)

    def pause(self, number):
        self.servers[number].send(signal.SIGSTOP)

    def resume(self, number):
        self.servers[number].send(signal.SIGCONT)

    # ---- asking ----

    def client(self, number, patience=5):
        return redis_library.Redis(port=self.ports[number], decode_responses=True, socket_timeout=patience)

    def sentinel(self, number):
        return redis_library.Redis(port=self.sentinel_ports[number], decode_responses=True, socket_timeout=5)

    def told(self, number):
        """The port of the master by a sentinel's word."""
        reply = self.sentinel(number).execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", NAME)
        return int(reply[1])

    def is_whole(self):
        info = self.client(0).info("replication")
        online = [i for i in range(len(self.servers) - 1) if info.get(f"slave{i}", {}).get("state") == "online"]
        if info["role"] != "master" or len(online) != len(self.servers) - 1:
            return False
        for number in range(len(self.sentinels)):
            for master in self.sentinel(number).sentinel_masters().values():
                if master["num-slaves"] != len(self.servers) - 1 or master["num-other-sentinels"] != len(self.sentinels) - 1:
                    return False
        return True

    def until(self, check, what, patience=PATIENCE * 2):
        """Asks again whenever a sentinel has written a line, and at least every 50 ms."""
        limit = time.monotonic() + patience
        while True:
            try:
                found = check()
            except redis_library.RedisError:
                found = None
            if found:
                return found
            assert time.monotonic() < limit, f"no {what} within {patience} s:\n" + self.tails()
            with self.sentinels[0].changed:
                self.sentinels[0].changed.wait(0.05)

    def until_primary_is_not(self, number):
        """After a failover: the number of the server that all sentinels name, and that says it is the master."""
        def check():
            named = {self.told(i) for i in range(len(self.sentinels))}
            if len(named) != 1 or self.ports[number] in named:
                return None
            other = self.ports.index(named.pop())
            return [other] if self.client(other).info("replication")["role"] == "master" else None

        return self.until(check, "new primary")[0]

    def until_follows(self, number, primary):
        """The server is a replica that has caught up."""
        def check():
            info = self.client(number).info("replication")
            return (info["role"] == "slave" and info["master_port"] == self.ports[primary]
                    and info["master_link_status"] == "up")

        return self.until(check, f"server {number} behind {primary}")

    def tails(self, count=30):
        parts = []
        for process in self.servers + self.sentinels:
            if process:
                parts.append(f"--- {process.name}\n{process.tail(count)}")
        return "\n".join(parts)
