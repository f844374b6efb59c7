"""The metrics of the language model: read from the database, as other processes ask the model, too."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from memoair_cloud.memories.model_usage import ProjectUsage

_COUNTERS = {
    "calls": "Calls that a model was asked about, by project.",
    "failures": "Calls that the rules read instead, because the model failed, by project.",
    "requests": "Requests to the model, failed ones included, by project.",
    "unknown": "Answers that did not report their tokens, by project.",
}
_TOKENS = {"prompt": "prompt_tokens", "cached": "cached_tokens", "completion": "completion_tokens"}


class ModelCollector(Collector):
    """Reports the usage that it was given last. Projects are named, callers and their words are not."""

    def __init__(self) -> None:
        self.usage: Mapping[str, ProjectUsage] = {}

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the counters."""
        usage = self.usage
        for name, text in _COUNTERS.items():
            family = CounterMetricFamily(f"memoair_cloud_model_{name}", text, labels=["project"])
            for project, total in usage.items():
                family.add_metric([project], total.sums[name])
            yield family
        seconds = CounterMetricFamily(
            "memoair_cloud_model_seconds",
            "Time of the requests to the model in seconds, by project.",
            labels=["project"],
        )
        cost = CounterMetricFamily(
            "memoair_cloud_model_cost",
            "Cost of the tokens that are known, in the currency of the prices, by project.",
            labels=["project"],
        )
        tokens = CounterMetricFamily(
            "memoair_cloud_model_tokens",
            "Tokens of the model by project and kind; the cached ones are part of the prompt.",
            labels=["project", "kind"],
        )
        facts = CounterMetricFamily(
            "memoair_cloud_model_facts",
            "Facts that the model suggested, by project and by what became of them.",
            labels=["project", "outcome"],
        )
        for project, total in usage.items():
            seconds.add_metric([project], total.sums["ms"] / 1e3)
            cost.add_metric([project], total.sums["cost_micros"] / 1e6)
            facts.add_metric([project, "kept"], total.sums["kept"])
            for kind, column in _TOKENS.items():
                tokens.add_metric([project, kind], total.sums[column])
            for reason, count in total.dropped.items():
                facts.add_metric([project, reason], count)
        yield from (seconds, cost, tokens, facts)
