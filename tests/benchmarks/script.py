"""The short script that somebody would write instead of a daemon, measured beside it.

Ordinary and honest: Motor's `async for` over the change stream, the question looked up, and a trace of the langfuse
package. It has no checkpoint and no record of what arrived. As it stands it has no history and no tools either; with
SEND=everything it looks up the conversation and sends both, as the daemon does.
"""

import asyncio
import os
import signal
from typing import Any

from bson import Timestamp
from langfuse import Langfuse, get_client, propagate_attributes
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection

Row = dict[str, Any]


async def follow(messages: "AsyncIOMotorCollection[Row]", langfuse: Langfuse) -> None:
    """Trace every finished response, once each."""
    sent: set[str] = set()
    # A real one would keep a resume token; the time from which on to read is its cheapest form.
    since = Timestamp(int(os.environ["SINCE_SECONDS"]), 1)
    changed = [{"$match": {"operationType": {"$in": ["insert", "update", "replace"]}}}]
    async with messages.watch(changed, full_document="updateLookup", start_at_operation_time=since) as stream:
        async for change in stream:
            response = change.get("fullDocument")
            if response is None or response["isCreatedByUser"] or response["unfinished"]:
                continue
            if response["messageId"] in sent:
                continue
            sent.add(response["messageId"])
            if os.environ.get("SEND") == "everything":
                cursor = messages.find({"conversationId": response["conversationId"]}).sort("createdAt")
                prompt = read_prompt(await cursor.to_list(None), response)
                trace(langfuse, {"text": prompt[-1]["content"]}, response, prompt)
                continue
            question = await messages.find_one({"messageId": response["parentMessageId"]})
            trace(langfuse, question or {}, response, None)


def read_prompt(rows: list[Row], response: Row) -> list[Row]:
    """The conversation up to the question, along the chain of parents, as chat messages."""
    by_id = {row["messageId"]: row for row in rows}
    chain = []
    row = by_id.get(response["parentMessageId"])
    while row is not None:
        chain.append(row)
        row = by_id.get(row["parentMessageId"])
    prompt: list[Row] = []
    for row in reversed(chain):
        if row["isCreatedByUser"]:
            prompt.append({"role": "user", "content": row["text"]})
            continue
        for call in read_tools(row):
            prompt.append({"role": "assistant", "content": "", "tool_calls": [call]})
            prompt.append({"role": "tool", "tool_call_id": call["id"], "content": call["output"]})
        prompt.append({"role": "assistant", "content": read_answer(row)})
    return prompt


def read_answer(response: Row) -> str:
    """The text of an answer."""
    return "".join(part.get("text", "") for part in response["content"]) or str(response["text"])


def read_tools(response: Row) -> list[Row]:
    """The tool calls of an answer."""
    return [part["tool_call"] for part in response["content"] if part["type"] == "tool_call"]


def trace(langfuse: Langfuse, question: Row, response: Row, prompt: list[Row] | None) -> None:
    """One trace: the turn, in it the generation, and the tools where there is a prompt."""
    answer = read_answer(response)
    usage = response.get("metadata", {}).get("usage", {})
    trace_id = langfuse.create_trace_id(seed=response["messageId"])
    with propagate_attributes(
        session_id=response["conversationId"], user_id=response["user"], trace_name="librechat-turn"
    ):
        root = langfuse.start_observation(
            name="turn", as_type="agent", trace_context={"trace_id": trace_id}, input=question.get("text")
        )
        generation = root.start_observation(
            name=response["model"],
            as_type="generation",
            model=response["model"],
            input=question.get("text") if prompt is None else prompt,
        )
        generation.update(
            output=answer,
            usage_details={"input": usage.get("input", 0), "output": usage.get("output", 0)},
            cost_details={"total": usage.get("cost", 0.0)},
        )
        generation.end()
        for call in read_tools(response) if prompt is not None else []:
            tool = root.start_observation(name=call["name"], as_type="tool", input=call["args"])
            tool.update(output=call["output"])
            tool.end()
        root.update(output=answer)
        root.end()


async def run() -> None:
    """Follow until SIGTERM, then send what is left."""
    langfuse = get_client()
    client: AsyncIOMotorClient[Row] = AsyncIOMotorClient(os.environ["MONGO_URI"])
    following = asyncio.create_task(follow(client.get_default_database()["messages"], langfuse))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, following.cancel)
    await asyncio.wait({following})
    langfuse.flush()
    if not following.cancelled():
        following.result()


if __name__ == "__main__":
    asyncio.run(run())
