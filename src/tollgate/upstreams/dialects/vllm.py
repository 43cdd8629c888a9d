"""vLLM: reports the usage in every chunk when asked."""

from collections.abc import Mapping

from tollgate.core.endpoints import ENDPOINTS
from tollgate.core.request_body import Ask
from tollgate.upstreams.dialects.openai import OpenAI, Shown, without_usage
from tollgate.upstreams.rules import UpstreamCall


class VLLM(OpenAI):
    continuous = True

    def form_fields(self, call: UpstreamCall) -> Mapping[str, bytes | None]:
        return {"stream_include_usage": b"true"} if call.ask.stream else {}

    def shown(self, ask: Ask) -> Shown:
        if ENDPOINTS[ask.endpoint].takes_file and ask.stream and not ask.include_usage:
            return without_usage
        return super().shown(ask)
