"""Connections to Redis that break while a daemon starts: it goes on trying, and no process ends for it."""

import rig as rigs
import samples
import torture_faults


def test_cut_anywhere_in_the_start_of_a_worker(new_rig):
    """Each start loses several of its first replies in the middle, after a number of bytes that differs from start to start.
    Found by the torture (seed 2): a reply lost between the check of Redis and the registration ended the worker.
    Fails with: core/work/worker.c, worker_join: `&& false` in the condition of the loop around worker_register."""
    r = new_rig(start=False, pipelines={"say": samples.ECHO})
    path = str(r.folder / "proxy.sock")
    proxy, tell = torture_faults.start_proxy(path, r.redis_socket)
    try:
        r.config["redis"]["url"] = f"unix:{path}"
        r.config["drain"] = "1s"
        r.write_config()
        for after in range(1, 600, 110):
            tell.write("".join(f"cut down {after + 7 * i}\n" for i in range(12)))
            tell.flush()
            r.start_daemon()
            r.daemon.wait_line(r"worker 1: ready")
            tell.write("forget\n")
            tell.flush()
            lines = [line for line in r.daemon.lines if "cannot start" in line or "child died" in line]
            assert not lines, (after, lines)
            assert r.stop_daemon() == 0
        r.start_daemon()
        r.start_lighttpd()
        r.until_ready()
        assert r.wait_job(r.submit("say", {"n": 1})["id"])["status"] == "completed"
    finally:
        tell.close()
        assert proxy.wait(rigs.PATIENCE) == 0
