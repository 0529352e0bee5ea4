"""The bytes that are downloaded: as many as wanted, never repeating, the same for one seed.

They lie in one file that the origin sends and the checks compare with, so that a byte which
is lost, doubled, out of order or wrong is seen at its offset."""
import hashlib
import mmap
import random

PART_BYTES = 1 << 20
FIND_BYTES = 32  # of so many random bytes, no two runs in a file are alike


def make(path, size, seed):
    """Writes the content; returns its SHA-256."""
    h, source = hashlib.sha256(), random.Random(seed)
    with open(path, "wb") as f:
        for at in range(0, size, PART_BYTES):
            part = source.randbytes(min(PART_BYTES, size - at))
            h.update(part)
            f.write(part)
    return h.hexdigest()


class Content:
    """The file, to be read at any offset."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.map = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
        self.size = len(self.map)

    def prefix_sha256(self, size):
        """Hexadecimal, of the first bytes."""
        h = hashlib.sha256()
        self.sha256(0, size, h)
        return h.hexdigest()

    def sha256(self, begin, end, h):
        for at in range(begin, end, PART_BYTES):
            h.update(self.map[at:min(at + PART_BYTES, end)])


class Checker:
    """What has come, compared with the content at each offset.

    `lost` counts bytes of the content that were skipped, `doubled` bytes that came again
    (or earlier than they should), `wrong` bytes that are nowhere in the content."""

    def __init__(self, content):
        self.content = content
        self.received = self.at = 0
        self.lost = self.doubled = self.wrong = 0
        self.hash = hashlib.sha256()
        self.want_hash, self.want_at = hashlib.sha256(), 0

    def faults(self):
        return {"lost": self.lost, "doubled": self.doubled, "wrong": self.wrong}

    def missing(self):
        """Bytes that never came if nothing more comes: skipped ones and the rest."""
        return self.lost + max(0, self.content.size - self.at)

    def feed(self, data):
        self.hash.update(data)
        self.received += len(data)
        while data:
            want = self.content.map[self.at:self.at + len(data)]
            if data == want:
                self.at += len(data)
                return
            same = _common(data, want)
            self.at += same
            data = self._realign(data[same:])

    def _realign(self, data):
        """data does not go on at self.at: finds where it does, and counts."""
        found = self.content.map.find(data[:FIND_BYTES]) if len(data) >= FIND_BYTES else -1
        if found < 0:
            step = min(len(data), FIND_BYTES)
            self.wrong += step
            self.at += step
            return data[step:]
        if found > self.at:
            self.lost += found - self.at
        else:
            self.doubled += self.at - found
        self.at = found
        return data

    def prefix(self):
        """(SHA-256 of what came, SHA-256 of as many bytes of the content), hexadecimal."""
        end = min(self.received, self.content.size)
        self.content.sha256(self.want_at, end, self.want_hash)
        self.want_at = end
        return self.hash.copy().hexdigest(), self.want_hash.copy().hexdigest()


def _common(a, b):
    """Length of the common beginning, by halves."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[:middle] == b[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
