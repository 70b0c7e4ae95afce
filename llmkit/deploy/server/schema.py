"""What the server reads and writes, as pydantic models: the OpenAPI description is made from them.

`Generate` and its answer are our own; `Completion` is OpenAI's `/v1/completions`, and `Chat` its
`/v1/chat/completions`, of which all that a sampler of one model can do is done, and the rest
refused. Unknown arguments are refused, as
OpenAI does: a misspelt `temprature` must not pass for a setting. `app` adds a server's own limits.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

from llmkit.deploy import engine

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Stop = Annotated[StrictStr, Field(min_length=1, max_length=256)]
Token = Annotated[StrictInt, Field(ge=0, lt=2**31)]
# fail_fast: a list of 100,000 wrong ids would have as many errors, which takes seconds.
Tokens = Annotated[list[Token], Field(min_length=1, fail_fast=True)]


EVENT = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
STREAM: dict[str, Any] = {  # each event's data is JSON, but for OpenAI's last one, which is [DONE]
    "description": "the text; with stream, piece by piece",
    "content": {"text/event-stream": {"itemSchema": EVENT}},
}


class Arguments(BaseModel):
    """What a client sends. Null is the same as left out, and some clients send it."""

    model_config = ConfigDict(extra="forbid")
    NO_WISH: ClassVar[dict[str, Any]] = {}  # arguments that we lack, and by which nothing is asked

    @model_validator(mode="before")
    @classmethod
    def _wishes(cls, sent: Any) -> Any:
        if not isinstance(sent, dict):
            return sent
        kept = {name: value for name, value in sent.items() if value is not None}
        for name, value in cls.NO_WISH.items():
            if name in kept and kept[name] == value:
                del kept[name]
        for name in [name for name in kept if name not in cls.model_fields][1:]:
            del kept[name]  # one that is unknown will be told; thousands would take seconds
        return kept


class Sampling(Arguments):
    """How to draw, in both requests alike."""

    temperature: Annotated[Number, Field(ge=0)] = Field(
        1.0, description="0: always the likeliest token; higher: more varied"
    )
    top_k: StrictInt | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = Field(
        None, description="draw from the fewest tokens that have this share of the probability"
    )
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] = Field(
        [], description="strings that end the text, and are no part of it; four at most"
    )
    seed: Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | None = Field(
        None, description="same seed, same text; without one, the answer has the seed it was given"
    )
    stream: StrictBool = Field(False, description="send the text as it is made (SSE)")

    def request(self, prompts: list[list[int]], new: int) -> engine.Request:
        """What the engine is asked to draw, at most `new` tokens after each prompt."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        choices = (self.temperature, self.top_k, self.top_p, stop, self.seed)
        return engine.Request(prompts, new, *choices)


class Generate(Sampling):
    """POST /generate: go on from a text."""

    prompt: StrictStr


class StreamOptions(Arguments):
    """OpenAI's options of a stream."""

    include_usage: StrictBool = False
    include_obfuscation: StrictBool = False  # padding against listeners: there is none here


# LangChain and others send these with every request.
NEUTRAL: dict[str, Any] = {"frequency_penalty": 0, "logit_bias": {}, "presence_penalty": 0}


class OpenAI(Sampling):
    """What OpenAI's two requests share; top_k is ours."""

    model: StrictStr | None = Field(None, description="as /v1/models has it; may be left out")
    n: Annotated[StrictInt, Field(ge=1, lt=2**31)] = Field(
        1, description="answers to each prompt; answer i is drawn with seed + i"
    )
    stream_options: StreamOptions | None = None
    user: StrictStr = Field("", description="accepted, and of no effect")


class Completion(OpenAI):
    """POST /v1/completions, as OpenAI's clients send it."""

    NO_WISH = {**NEUTRAL, "best_of": 1, "suffix": ""}

    prompt: (
        StrictStr
        | Annotated[list[StrictStr], Field(min_length=1, fail_fast=True)]
        | Tokens
        | Annotated[list[Tokens], Field(min_length=1, fail_fast=True)]
    ) = ""
    echo: StrictBool = Field(False, description="begin each text with its prompt")

    def prompts(self) -> list[str | list[int]]:
        """The prompts, however many: each a text, or ids."""
        prompt: Any = self.prompt
        several = isinstance(prompt, list) and not isinstance(prompt[0], int)
        return prompt if several else [prompt]


class Part(Arguments):
    """A piece of a turn's content."""

    type: Literal["text"]
    text: StrictStr


class Turn(Arguments):
    """A turn of a conversation. `finetune.chatml` says which roles there are."""

    role: StrictStr
    content: StrictStr | list[Part]
    name: StrictStr = Field("", description="accepted, and of no effect")


class Chat(OpenAI):
    """POST /v1/chat/completions, as OpenAI's clients send it."""

    NO_WISH = {
        **NEUTRAL,
        "logprobs": False,
        "modalities": ["text"],
        "response_format": {"type": "text"},
        "store": False,
        "tools": [],
    }

    messages: Annotated[list[Turn], Field(fail_fast=True)]

    def turns(self) -> list[dict[str, str]]:
        """The conversation, each turn's content as one text."""

        def text(content: str | list[Part]) -> str:
            return content if isinstance(content, str) else "".join(part.text for part in content)

        return [{"role": turn.role, "content": text(turn.content)} for turn in self.messages]


class Timings(BaseModel):
    """Seconds from the request's coming."""

    waited: float
    first_token: float | None
    total: float


class Generated(BaseModel):
    """The answer of /generate; of a stream the last event, whose text is the last piece."""

    text: str
    prompt_tokens: int
    tokens: int
    seed: int
    finish_reason: Literal["stop", "length"]
    timings: Timings


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Choice(BaseModel):
    index: int
    text: str
    logprobs: None
    finish_reason: Literal["stop", "length"]


class Completed(BaseModel):
    """The answer of /v1/completions. seed is ours: with it, the answer can be had again."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    seed: int
    choices: list[Choice]
    usage: Usage


class Message(BaseModel):
    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(BaseModel):
    index: int
    message: Message
    logprobs: None
    finish_reason: Literal["stop", "length"]


class ChatCompleted(BaseModel):
    """The answer of /v1/chat/completions. seed is ours, as in `Completed`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    seed: int
    choices: list[ChatChoice]
    usage: Usage


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(BaseModel):
    object: Literal["list"]
    data: list[Model]


class Health(BaseModel):
    """message: what has failed; waiting, running: requests now; served: answered since the start;
    the rest are limits."""

    status: Literal["ok", "stopping", "failed"]
    message: str | None
    model: str
    waiting: int
    running: int
    served: int
    queue: int
    max_prompt: int
    max_tokens: int
    needs_key: bool


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """Every error, in OpenAI's shape."""

    error: ErrorDetail
