"""Systems put together: pipelines that retrieve, blend, filter, score, rerank and explain.

spec = PipelineSpec.from_json(text)             what it is, as data
pipeline = compile(spec, {"ials": bundle, ...})  ready to answer, used as any bundle is
fitted = fit_pipeline(spec, data, seed=0)        systems and, for a learned blend, the ranker
fitted.save(folder); PipelineBundle.load(folder).pipeline
"""

from tastemaker.compose.assemble import check, compile  # noqa: A004 - the word for it
from tastemaker.compose.bundle import PIPELINE, PipelineBundle
from tastemaker.compose.diagram import diagram, svg
from tastemaker.compose.faults import Fault, PipelineError
from tastemaker.compose.fitting import collect, fit_pipeline
from tastemaker.compose.pipeline import Pipeline, PipelineInfo
from tastemaker.compose.spec import PipelineSpec

__all__ = [
    "PIPELINE",
    "Fault",
    "Pipeline",
    "PipelineBundle",
    "PipelineError",
    "PipelineInfo",
    "PipelineSpec",
    "check",
    "collect",
    "compile",
    "diagram",
    "fit_pipeline",
    "svg",
]
