"""A proxy in front of Redis, on a unix socket, that breaks connections, and may change what the server says.

Each connection gets an allowance of bytes, drawn from a seed, for both directions together; the byte beyond it is not
passed on, and both ends are closed. So commands and replies break at any place: before, in the middle, after.
"""

import random
import selectors
import socket
import threading


class Cutter:
    def __init__(self, path, upstream, seed=1, least=0, most=0, change=None):
        """`most` 0: nothing is cut. change(bytes of the server) -> bytes of the same length."""
        self.upstream, self.dice, self.least, self.most, self.change = upstream, random.Random(seed), least, most, change
        self.cuts = 0
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(128)
        self.wake, self.woken = socket.socketpair()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.selector.register(self.woken, selectors.EVENT_READ)
        self.peers, self.left = {}, {}
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _drop(self, one):
        for each in (one, self.peers.pop(one)):
            self.peers.pop(each, None)
            self.left.pop(each, None)
            self.selector.unregister(each)
            each.close()

    def _accept(self):
        client, _ = self.listener.accept()
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            server.connect(self.upstream)
        except OSError:
            client.close()
            server.close()
            return
        self.peers[client], self.peers[server] = server, client
        # One allowance for the pair; the ends share the list.
        self.left[client] = self.left[server] = [self.dice.randint(self.least, self.most) if self.most else -1]
        for each, is_server in ((client, False), (server, True)):
            self.selector.register(each, selectors.EVENT_READ, is_server)

    def _pass(self, one, is_server):
        try:
            data = one.recv(65536)
            if data:
                left = self.left[one]
                is_cut = left[0] >= 0 and len(data) > left[0]
                if is_cut:
                    data = data[:left[0]]
                elif left[0] >= 0:
                    left[0] -= len(data)
                if is_server and self.change:
                    data = self.change(data)
                self.peers[one].sendall(data)
                if not is_cut:
                    return
                self.cuts += 1
        except OSError:
            pass
        self._drop(one)

    def _run(self):
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.woken:
                    for one in list(self.peers):
                        if one in self.peers:
                            self._drop(one)
                    self.listener.close()
                    return
                if key.fileobj is self.listener:
                    self._accept()
                elif key.fileobj in self.peers:
                    self._pass(key.fileobj, key.data)

    def close(self):
        self.wake.send(b"x")
        self.thread.join()
        self.selector.close()
        self.wake.close()
        self.woken.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
