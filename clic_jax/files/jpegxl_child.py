"""Decodes JPEG XL from stdin to stdout in limited memory: BYTES HEIGHT WIDTH. What `jpegxl` runs, by its path."""

import contextlib
import sys

import imagecodecs  # before there is a limit

if __name__ == "__main__":
    memory, height, width = map(int, sys.argv[1:])
    with contextlib.suppress(ImportError):  # Windows has none
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    x = imagecodecs.jpegxl_decode(sys.stdin.buffer.read(), numthreads=1)
    if (x.shape, x.dtype) != ((height, width, 3), "uint8"):
        sys.exit(f"{x.dtype} {x.shape} and not uint8 {(height, width, 3)}")
    sys.stdout.buffer.write(x.tobytes())
