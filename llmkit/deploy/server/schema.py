"""What the server reads and writes, as pydantic models: the OpenAPI description is made from them.

`Generate` and its answer are our own; `Completion` is OpenAI's `/v1/completions`, of which all that
a sampler of one model can do is done, and the rest refused. Unknown fields are refused, as OpenAI
does: a misspelt `temprature` must not pass for a setting.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Stop = Annotated[StrictStr, Field(min_length=1, max_length=256)]
Stops = Stop | Annotated[list[Stop], Field(max_length=4)]
Seed = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
Token = Annotated[StrictInt, Field(ge=0, lt=2**31)]
Tokens = Annotated[list[Token], Field(min_length=1)]
Texts = Annotated[list[StrictStr], Field(min_length=1)]


class Sampling(BaseModel):
    """How to draw, in both requests alike."""

    model_config = ConfigDict(extra="forbid")

    temperature: Annotated[Number, Field(ge=0)] | None = Field(
        1.0, description="0: always the likeliest token; higher: more varied"
    )
    top_k: Annotated[StrictInt, Field(ge=1, lt=2**31)] | None = Field(
        None, description="draw from the likeliest k tokens only"
    )
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = Field(
        None, description="draw from the fewest tokens that have this share of the probability"
    )
    stop: Stops | None = Field(
        None, description="strings that end the text, and are no part of it; four at most"
    )
    seed: Seed | None = Field(
        None, description="same seed, same text; without one, the answer tells the seed it had"
    )
    stream: StrictBool | None = Field(False, description="send the text as it is made (SSE)")

    def stops(self) -> tuple[str, ...]:
        """The stop strings, however many."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class Generate(Sampling):
    """POST /generate: go on from a text."""

    prompt: StrictStr
    max_new_tokens: Annotated[StrictInt, Field(ge=0, lt=2**31)] = 100


class StreamOptions(BaseModel):
    """OpenAI's options of a stream."""

    model_config = ConfigDict(extra="forbid")

    include_usage: StrictBool | None = False
    include_obfuscation: StrictBool | None = None  # padding against listeners: there is none here


class Completion(Sampling):
    """POST /v1/completions, as OpenAI's clients send it; top_k is ours besides."""

    model: StrictStr | None = Field(None, description="as /v1/models has it; may be left out")
    prompt: StrictStr | Texts | Tokens | Annotated[list[Tokens], Field(min_length=1)] | None = None
    max_tokens: Annotated[StrictInt, Field(ge=0, lt=2**31)] | None = 16
    n: Annotated[StrictInt, Field(ge=1, lt=2**31)] | None = Field(
        1, description="answers to each prompt; answer i is drawn with seed + i"
    )
    echo: StrictBool | None = Field(False, description="begin each text with its prompt")
    stream_options: StreamOptions | None = None
    user: StrictStr | None = Field(None, description="accepted, and of no effect")
    best_of: Annotated[StrictInt, Field(ge=1, lt=2**31)] | None = Field(
        None, description="as many as n, or nothing: answers are not ranked"
    )
    suffix: Literal[""] | None = Field(None, description="not supported")
    logprobs: None = Field(None, description="not supported")
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = Field(
        None, description="not supported"
    )
    frequency_penalty: Annotated[Number, Field(ge=0, le=0)] | None = Field(
        0, description="not supported: 0 only"
    )
    presence_penalty: Annotated[Number, Field(ge=0, le=0)] | None = Field(
        0, description="not supported: 0 only"
    )

    @model_validator(mode="after")
    def _together(self) -> Completion:
        if self.best_of not in (None, self.n or 1):
            raise ValueError("best_of: answers are not ranked here; leave it out, or give it n")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: only a stream has them; set stream to true")
        return self


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


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(BaseModel):
    object: Literal["list"]
    data: list[Model]


class Health(BaseModel):
    """waiting, running: requests now; served: answered since the start; the rest are limits."""

    status: Literal["ok", "stopping"]
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
