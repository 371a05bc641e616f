"""The langfuse package's own client, over the connection that everything shares: scores, deletions and uploads use it.

Its errors keep only a part of an answer, and it reads every answer into one shape, also that of a proxy. So the answer
itself is kept beside it, and `understand` judges that, as it does for spans and reads.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import httpx

from tailer.flow.sending.outcomes import Retry
from tailer.langfuse.answers import Answer, understand
from tailer.langfuse.connection import LangfuseConnection
from tailer.outbound.failures import describe_failure

if TYPE_CHECKING:
    from langfuse.api import AsyncLangfuseAPI
    from langfuse.api.core import RequestOptions
    from langfuse.api.core.http_response import AsyncHttpResponse

    _Loaded = tuple[AsyncLangfuseAPI, type[Exception]]

Result = TypeVar("Result")
ONCE: Final["RequestOptions"] = {"max_retries": 0}
"""No retries of the package's own: whoever asks decides when to ask again."""
_MODULE: Final = "langfuse.api"
_ANSWERS: Final[ContextVar[list[httpx.Response]]] = ContextVar("answers of the request that is under way")


@dataclass(frozen=True, slots=True)
class Reply(Generic[Result]):
    """An answer with its meaning. `data` is what the package read in it; None where it was refused, or taken and told
    in a shape that the package does not know."""

    response: httpx.Response
    answer: Answer
    data: Result | None


class LangfusePackage:
    """The package's client. It is loaded when it is first needed: that takes 8 MB and a tenth of a second of CPU."""

    def __init__(self, connection: LangfuseConnection) -> None:
        self._connection = connection
        self._loaded: _Loaded | None = None

    async def ask(
        self, operation: "Callable[[AsyncLangfuseAPI], Awaitable[AsyncHttpResponse[Result]]]"
    ) -> Reply[Result] | Retry:
        """Run one operation of the package's `with_raw_response` clients once; Retry where no answer came."""
        api, refusal = await self._open()
        answers: list[httpx.Response] = []
        mark = _ANSWERS.set(answers)
        data: Result | None = None
        try:
            data = (await operation(api)).data
        except httpx.RequestError as error:
            return Retry(type(error).__name__, remedy=describe_failure(error))
        except (refusal, ValueError, RecursionError):
            # A refusal, or an answer that is no JSON, of another shape or nested without an end: the answer says which.
            if not answers:
                raise
        finally:
            _ANSWERS.reset(mark)
        return Reply(answers[-1], understand(answers[-1]), data)

    async def _open(self) -> "_Loaded":
        if self._loaded is None:
            # On a thread, because the lease and the streams go on meanwhile.
            module = await asyncio.to_thread(import_module, _MODULE)
            credentials, http = self._connection.credentials, self._connection.http
            http.event_hooks["response"].append(_keep_answer)
            api = module.AsyncLangfuseAPI(
                base_url=credentials.host,
                username=credentials.public_key,
                password=credentials.secret_key,
                httpx_client=http,
            )
            self._loaded = api, module.core.ApiError
        return self._loaded


async def _keep_answer(response: httpx.Response) -> None:
    answers = _ANSWERS.get(None)
    if answers is not None:
        answers.append(response)
