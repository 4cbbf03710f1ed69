"""Between a daemon and its Redis: `torture --proxy LISTEN TARGET` passes bytes on and cuts connections when told to.

Standard input: `cut down N` the connection that next has an answer from Redis loses it after N more bytes (the command
reached Redis, its reply is lost in the middle); `cut up N`: the same for what goes to Redis (half a command); `forget`:
no cut that was not made yet; `all`: cuts every connection at once. Unix sockets, one thread.
"""

import os
import selectors
import socket
import sys

PIECE = 1 << 18


class Link:
    def __init__(self, proxy, client, upstream):
        self.proxy, self.client, self.upstream = proxy, client, upstream
        self.left = {client: None, upstream: None}  # bytes from there until the cut

    def other(self, side):
        return self.upstream if side is self.client else self.client

    def close(self):
        for side in (self.client, self.upstream):
            self.proxy.selector.unregister(side)
            side.close()
        self.proxy.links.discard(self)

    def ready(self, side):
        try:
            data = side.recv(PIECE)
        except OSError:
            data = b""
        way = "down" if side is self.upstream else "up"
        if self.left[side] is None and self.proxy.cuts[way]:
            self.left[side] = self.proxy.cuts[way].pop(0)
        cut = self.left[side] is not None and len(data) >= self.left[side]
        if cut:
            data = data[: self.left[side]]
        elif self.left[side] is not None:
            self.left[side] -= len(data)
        try:
            if data:
                self.other(side).sendall(data)
        except OSError:
            cut = True
        if cut or not data:
            self.close()


class Proxy:
    def __init__(self, listen, target):
        self.selector = selectors.DefaultSelector()
        self.target, self.links = target, set()
        self.cuts = {"down": [], "up": []}
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(listen)
        self.listener.listen(256)
        self.selector.register(self.listener, selectors.EVENT_READ, lambda: self.accept())
        self.selector.register(sys.stdin.fileno(), selectors.EVENT_READ, lambda: self.command())
        self.is_over = False

    def accept(self):
        client, _ = self.listener.accept()
        upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            upstream.connect(self.target)
        except OSError:
            client.close()
            upstream.close()
            return
        link = Link(self, client, upstream)
        self.links.add(link)
        for side in (client, upstream):
            self.selector.register(side, selectors.EVENT_READ, lambda side=side: link.ready(side))

    def command(self):
        text = os.read(sys.stdin.fileno(), 65536).decode()
        self.is_over = not text
        for line in text.splitlines():
            words = line.split()
            if words[0] == "cut":
                self.cuts[words[1]].append(int(words[2]))
            elif words[0] == "forget":
                self.cuts = {"down": [], "up": []}
                for link in self.links:
                    link.left = dict.fromkeys(link.left)
            elif words[0] == "all":
                for link in list(self.links):
                    link.close()

    def run(self):
        print("ready", flush=True)
        while not self.is_over:
            for key, _ in self.selector.select():
                # A link that an earlier one of these has closed is passed over.
                if key.fileobj is self.listener or isinstance(key.fileobj, int) or key.fileobj.fileno() >= 0:
                    key.data()


def main(listen, target):
    Proxy(listen, target).run()
