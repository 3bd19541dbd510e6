"""What GPUs do in a second, and what things cost: a file of the package, and one of the user's."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from limbeck.config import Dtype
from limbeck.errors import ConfigError
from limbeck.parameters import read_parameters
from limbeck.section import Positive, Section, parse

RATES = Path(__file__).with_name("rates.yaml")
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Price = Annotated[float, Field(ge=0.0)]


class Gpu(Section):
    """One kind of GPU."""

    memory_gib: Positive
    """Memory in GiB, as nvidia-smi shows it."""
    bf16_tflops: Positive
    """Dense peak of bfloat16, in 10^12 FLOP/s."""
    float32_tflops: Positive
    """Peak of float32 outside of tensor cores, in 10^12 FLOP/s."""
    gb_per_second: Positive
    """Peak of the memory, in 10^9 bytes/s."""
    training: Share
    """Share of the peak FLOP/s that a training reaches (MFU)."""
    prefill: Share
    """The same of an engine that reads prompts."""
    decode: Share
    """Share of the memory's peak that an engine reaches while it writes completions (MBU)."""
    source: str
    """Where the figures come from."""

    def flops_per_second(self, dtype: Dtype) -> float:
        """The peak of a number type."""
        return (self.bf16_tflops if dtype == "bfloat16" else self.float32_tflops) * 1e12


class CpuRates(Section):
    """Rows that one CPU takes in a second, by stage."""

    prepare: Positive
    """Rows of the data set."""
    label: Positive
    """Completions."""
    report: Positive
    """Completions, judgements and held-out answers."""


class Rates(Section):
    """The file of rates."""

    gpus: Annotated[dict[str, Gpu], Field(min_length=1)]
    """By name."""
    step_milliseconds: Price
    """What one step of an engine costs beside the GPU's work."""
    cpu_rows_per_second: CpuRates
    """Of the stages without a GPU."""

    def gpu(self, name: str) -> Gpu:
        """One kind of GPU.

        Raises:
            ConfigError: when there is none of that name.
        """
        if name not in self.gpus:
            raise ConfigError(
                "unknown GPU",
                where="--gpu",
                expected=", ".join(self.gpus),
                got=name,
                remedy="Name one of these, or give a file of your own with --rates",
            )
        return self.gpus[name]


class Prices(Section):
    """What the user pays; nothing is known of itself."""

    currency: str
    """Such as EUR."""
    source: str
    """Where the prices come from and of which day."""
    gpu_hour: dict[str, Price]
    """An hour of one GPU, by its name."""
    storage_gb_month: Price = 0.0
    """10^9 bytes in the object store for a month."""

    def of_gpu(self, name: str) -> float:
        """The price of an hour.

        Raises:
            ConfigError: when the file does not name this GPU.
        """
        if name not in self.gpu_hour:
            raise ConfigError(
                "no price of this GPU",
                where="--prices, gpu_hour",
                expected=name,
                got=", ".join(self.gpu_hour) or "none",
                remedy="Add it",
            )
        return self.gpu_hour[name]


def load_rates(path: Path | None) -> Rates:
    """The rates of a file, or those of the package.

    Raises:
        ConfigError: when it cannot be read or does not hold them.
    """
    path = path or RATES
    return parse(Rates, read_parameters(path, "file of rates"), str(path))


def load_prices(path: Path) -> Prices:
    """The prices of a file.

    Raises:
        ConfigError: when it cannot be read or does not hold them.
    """
    return parse(Prices, read_parameters(path, "file of prices"), str(path))
