"""The settings that the GPU benchmark measures, and which process measures which of them."""

from dataclasses import astuple, dataclass, replace
from itertools import product

from scripts.benchmark.gpu_report import NO_VGG, TINY_GENERATOR, TINY_TRAINING, Context

LAYOUTS = {"channels_last": ["--channels_last"], "contiguous": ["--no-channels_last"], "default": []}
MODES_OF_SPEED = {
    "eager": ["--no-compile"],
    "graph": ["--no-compile", "--cuda_graph"],
    "compile": ["--compile"],
    "compile+graph": ["--compile", "--cuda_graph"],
    "reduce-overhead": ["--compile", "--compile_mode=reduce-overhead"],
}
FLAGS_OF_WORK = {
    "inference": [],
    "training": ["--init_type=normal"],
    "half width": ["--init_type=normal", "--ngf=32", *NO_VGG],  # the training at the end of the benchmark
    "published": [],  # the published step in plain form
}
PROFILED = [("256x256", "tf32", "contiguous"), ("256x256", "bf16", "contiguous"), ("256x256", "bf16", "channels_last"),
            ("128x64", "bf16", "contiguous")]  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One setting of the grid."""

    work: str  # of FLAGS_OF_WORK
    size: str  # 256x256 or 128x64
    batch: int
    precision: str
    layout: str  # of LAYOUTS
    mode: str  # of MODES_OF_SPEED

    @property
    def is_training(self) -> bool:
        return self.work != "inference"

    @property
    def compiled(self) -> bool:
        return self.mode not in ("eager", "graph")

    @property
    def graph(self) -> bool:
        return self.mode.endswith("graph")

    def with_graph(self) -> "Cell":
        return replace(self, mode={"eager": "graph", "compile": "compile+graph"}.get(self.mode, self.mode))

    @property
    def profiled(self) -> bool:
        """Whether its step is divided into kernels: only some settings, because starting the profiler takes seconds."""
        if not self.is_training or self.batch != 32 or self.graph:
            return False
        return self.compiled or self.work == "published" or (self.size, self.precision, self.layout) in PROFILED

    def flags(self, quick: bool) -> list[str]:
        flags = [*LAYOUTS[self.layout], *MODES_OF_SPEED[self.mode], f"--precision={self.precision}"]
        tiny = [*TINY_TRAINING, *NO_VGG] if self.is_training else TINY_GENERATOR
        return [*flags, *FLAGS_OF_WORK[self.work], *(tiny if quick else [])]

    def __str__(self) -> str:
        return " ".join(map(str, astuple(self)))


Job = tuple[Cell, ...]  # what one process measures; cells of one model are neighbors


def with_graph(*setting: object) -> Job:
    """Training in eager mode, without and with a CUDA graph."""
    return Cell(*setting, "eager"), Cell(*setting, "graph")


def published_jobs(context: Context) -> list[Job]:
    """The published step at each size."""
    precision, batch = ("tf32", 32) if context.device.type == "cuda" else ("fp32", 1 if context.quick else 32)
    return [(Cell("published", size, batch, precision, "contiguous", "eager"),) for size in context.sizes]


def grid_jobs(context: Context) -> list[Job]:
    """The jobs that processes prepare in advance, the most important ones first."""
    sizes, layouts, precisions = context.sizes, ("channels_last", "contiguous"), ("bf16", "tf32")
    if context.device.type == "cpu":  # a rehearsal: one process, because starting one takes longer than its work
        settings = [*product(("training",), layouts), ("inference", layouts[0]), ("half width", layouts[0])]
        cells = product(sizes, settings)
        return [tuple(Cell(work, size, 1, "fp32", layout, "eager") for size, (work, layout) in cells)]
    plain = {layout: [with_graph("training", size, 32, precision, layout)
                      for precision, size in product(precisions, sizes)] for layout in layouts}  # fmt: skip
    jobs = plain["contiguous"]  # the default
    if "128x64" in sizes:
        jobs.append(tuple(Cell("half width", "128x64", 32, "bf16", layout, "graph") for layout in layouts))
    modes = ("compile", "compile+graph")
    jobs += [tuple(Cell("training", size, 32, precision, "channels_last", mode) for mode in modes)
             for precision, size in product(precisions, sizes)]  # fmt: skip
    jobs += plain["channels_last"]
    jobs.append(tuple(Cell("inference", size, batch, precision, layout, "eager")
                      for precision, size, batch, layout in product(precisions, sizes, (32, 1), layouts)))  # fmt: skip
    if "128x64" in sizes:
        jobs.append(tuple(cell for batch, layout in product((8, 1), layouts)
                          for cell in with_graph("training", "128x64", batch, "bf16", layout)))  # fmt: skip
    jobs.append(tuple(cell for size in sizes for cell in with_graph("training", size, 32, "fp32", "channels_last")))
    return jobs


def later_jobs(context: Context) -> list[Job]:
    """Jobs whose processes start only if time is left: each takes as long as its model takes to compile or to build."""
    if context.device.type == "cpu":
        return []
    sizes, layouts = context.sizes, ("channels_last", "contiguous")
    jobs = [(Cell("training", size, 32, "bf16", "channels_last", "reduce-overhead"),) for size in sizes]
    jobs += [(Cell("inference", size, batch, "bf16", "channels_last", mode),)
             for mode, size, batch in product(("compile", "reduce-overhead"), sizes, (1, 32))]  # fmt: skip
    jobs += [with_graph("training", size, 32, "fp32", "contiguous") for size in sizes]
    jobs += [with_graph("training", size, batch, precision, layout)
             for size, batch, precision, layout in product(sizes, (8, 1), ("bf16", "tf32", "fp32"), layouts)
             if (size, precision) != ("128x64", "bf16")]  # fmt: skip
    inference = (Cell("inference", *setting, "eager")
                 for setting in product(sizes, (32, 8, 1), ("bf16", "tf32", "fp32"), layouts))  # fmt: skip
    jobs.append(tuple(cell for cell in inference if cell.batch == 8 or cell.precision == "fp32"))
    return jobs
