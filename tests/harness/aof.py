"""Redis's append-only file, as a test cuts it: what `appendfsync everysec` or a failover loses is the end of it.

A script's effects stand in it as one block, MULTI to EXEC; a command on its own is a block too. cut_before() makes
Redis forget the first block that matches and everything after it. Redis must not run meanwhile.
"""

import pathlib


def newest(folder):
    """The file that is being appended to (Redis 7: appendonlydir, the incr file of the highest number)."""
    files = pathlib.Path(folder, "appendonlydir").glob("*.incr.aof")
    return max(files, key=lambda path: int(path.name.split(".")[-3]))


def blocks(path):
    """[(first byte, byte after the last, [words of each command])] of the whole file."""
    data, at, found, open_block = path.read_bytes(), 0, [], None
    while at < len(data):
        start = at
        if data[at:at + 1] == b"#":  # an annotation
            at = data.index(b"\r\n", at) + 2
            continue
        end = data.find(b"\r\n", at)
        if data[at:at + 1] != b"*" or end < 0:
            break
        words, at = [], end + 2
        for _ in range(int(data[start + 1:end])):
            end = data.find(b"\r\n", at)
            size = int(data[at + 1:end])
            words.append(data[end + 2:end + 2 + size])
            at = end + 2 + size + 2
        if open_block is None and words[0].upper() == b"MULTI":
            open_block = (start, [words])
        elif open_block is None:
            found.append((start, at, [words]))
        else:
            open_block[1].append(words)
            if words[0].upper() == b"EXEC":
                found.append((open_block[0], at, open_block[1]))
                open_block = None
    return found


def holds(commands, *parts):
    """Whether one command of a block holds all the parts, each somewhere in its words."""
    return any(all(any(part.encode() in word for word in words) for part in parts) for words in commands)


def cut_before(folder, *parts, inside=False):
    """Cuts before the first block of which one command holds all the parts; `inside`: in the middle of that block, as a
    crash does. The commands that are gone, in order."""
    path = newest(folder)
    all_blocks = blocks(path)
    for i, (start, end, commands) in enumerate(all_blocks):
        if holds(commands, *parts):
            with open(path, "r+b") as file:
                file.truncate((start + end) // 2 if inside else start)
            return [words for _, _, some in all_blocks[i:] for words in some]
    raise AssertionError(f"no block with {parts} among {len(all_blocks)} blocks")
