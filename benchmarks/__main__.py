"""
Prints the table: `python -m benchmarks` that of speed, `python -m benchmarks double_charge` that of repeated orders,
`python -m benchmarks polling` that of waiting for many tasks.
"""

import asyncio
import sys


def speed() -> int:
    """
    Measure and print, ratios with what they are against.
    """
    from benchmarks import calls, imports, masks
    from benchmarks.server import serving

    with serving() as base_url:
        bare = asyncio.run(calls.against_bare(base_url))
        trio = {at_once: calls.trio_against_asyncio(base_url, at_once) for at_once in (32, 512)}
    _, imported = imports.measured()
    rows = [
        ("CPU of get_task / bare aiohttp GET, 32 at once", bare["get"]),
        ("CPU of create_task / bare aiohttp POST, 32 at once", bare["create"]),
        ("calls a second, trio / asyncio, 32 at once", trio[32]),
        ("calls a second, trio / asyncio, 512 at once", trio[512]),
        *((row.name if row.wall is None else f"CPU of {row.name}", row.cpu) for row in imported),
        ("mask to pixels / pycocotools, 720 x 1280", masks.against_pycocotools(720, 1280)),
        ("mask to pixels / pycocotools, 2160 x 2160", masks.against_pycocotools(2160, 2160)),
    ]
    for name, value in rows:
        print(f"| {name:<56} | {value:5.2f} |")
    return 0


def main() -> int:
    """
    The measurement that the command line names.
    """
    if sys.argv[1:] == ["double_charge"]:
        from benchmarks import double_charge

        return double_charge.main()
    if sys.argv[1:] == ["polling"]:
        from benchmarks import polling

        return polling.main()
    if sys.argv[1:]:
        print("usage: python -m benchmarks [double_charge | polling]", file=sys.stderr)
        return 2
    return speed()


if __name__ == "__main__":
    sys.exit(main())
