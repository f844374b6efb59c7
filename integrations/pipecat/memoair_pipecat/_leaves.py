"""The processors of a pipeline, also of pipelines in it.

Below 40 lines, but a matter of its own: how Pipecat nests them.
"""

from collections.abc import Iterator

from pipecat.processors.frame_processor import FrameProcessor


def leaf_processors(processor: FrameProcessor) -> Iterator[FrameProcessor]:
    """Yield the processors of a pipeline from start to end, without those that are made of others."""
    children = processor.processors
    if not children:
        yield processor
    for child in children:
        yield from leaf_processors(child)
