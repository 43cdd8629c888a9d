"""Alerts, rules, silences, channels and deliveries as clients write and see them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict, JsonValue

from tollgate.alerts.rules import NEEDED, NOT_TAKEN, ChannelKind, Event
from tollgate.alerts.signals import RULES, SIGNALS, Comparison, Severity
from tollgate.web.faults import PRINTABLE
from tollgate.web.schemas import ChangeBody, Identifier, Moment, Name, Note, PageQuery, Period, Text

URL = r"^https?://[!-~]+$"
RULE_ID = r"^[a-z][a-z0-9_-]{0,62}$"
ADDRESS = r"^[^\s@\x00-\x1f\x7f]+@[^\s@\x00-\x1f\x7f]+$"
WEEK = 604_800

State = Literal["active", "disabled"]
Url = Annotated[str, Field(max_length=1000, pattern=URL)]
Secret = Annotated[
    str, Field(min_length=8, max_length=1000, pattern=PRINTABLE, json_schema_extra={"format": "password"})
]
"""Validation errors do not repeat it."""
Names = Annotated[list[Identifier], Field(min_length=1, max_length=100)]
RuleId = Annotated[str, Field(pattern=RULE_ID)]
Seconds = Annotated[int, Field(ge=0, le=WEEK)]
Number = Annotated[float, Field(gt=-1e18, lt=1e18, allow_inf_nan=False)]
MailAddress = Annotated[str, Field(max_length=320, pattern=ADDRESS)]


def title_of(rule_id: str) -> str:
    """Rules of an operator's own have none but their id."""
    return RULES[rule_id].title if rule_id in RULES else rule_id


class _RuleFields(ChangeBody):
    clear_threshold: Number | None = Field(
        None, description="A firing alert clears once the reading is on the other side of this. Default: the threshold."
    )
    for_seconds: Seconds = Field(0, description="How long readings are beyond the threshold before the alert fires.")
    clear_seconds: Seconds = Field(0, description="How long they are clear before the alert is resolved.")
    severity: Severity = "warning"
    subjects: Names | None = Field(None, description="Only readings of these subjects. Default: all.")
    state: State = "active"
    description: Annotated[str, Field(max_length=500)] = ""


class NewRule(_RuleFields):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "error_rate_of_gpu",
                    "signal": "error_rate_percent",
                    "comparison": "at_least",
                    "threshold": 2,
                    "for_seconds": 300,
                    "subjects": ["ups_019aa5c1d2e37f60"],
                }
            ]
        }
    )

    id: RuleId
    signal: RuleId = Field(description="One of docs/reference/alerts.md.")
    comparison: Comparison
    threshold: Number


class RuleChanges(_RuleFields):
    """Fields that are left out stay as they are."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"threshold": 20, "clear_threshold": 10}]})

    comparison: Comparison = "at_least"
    threshold: Number = 0


class RuleValues(BaseModel):
    threshold: float
    clear_threshold: float | None
    for_seconds: int
    clear_seconds: int
    severity: Severity


class Advice(BaseModel):
    means: str
    look: str
    cause: str
    mend: str


class RuleDetails(BaseModel):
    id: str
    title: str
    signal: str
    signal_means: str = Field(description="What a reading of the signal says, and when there is one.")
    comparison: Comparison
    threshold: float
    clear_threshold: float | None
    for_seconds: int
    clear_seconds: int
    severity: Severity
    subjects: list[str] | None
    state: State
    description: str
    built_in: bool = Field(description="Whether it was there from the start, so that it can be reset.")
    at_start: RuleValues | None = Field(description="What a reset makes it; null for a rule of your own.")
    advice: Advice | None = Field(description="What to do when it fires; null for a rule of your own.")
    firing: int = Field(description="How many of its alerts fire.")
    created_at: Moment
    updated_at: Moment

    @model_validator(mode="before")
    @classmethod
    def _explained(cls, found: dict[str, Any]) -> dict[str, Any]:
        known = RULES.get(found["id"])
        return found | {
            "title": title_of(found["id"]),
            "signal_means": SIGNALS.get(found["signal"], ""),
            "at_start": known and known._asdict(),
            "advice": known and known._asdict(),
        }


class RuleReadings(BaseModel):
    count: int
    value: float | None = Field(description="The one nearest to the threshold, or farthest beyond it.")
    subject: str | None = Field(description="What that one is about.")


class RuleWithReadings(RuleDetails):
    readings: RuleReadings = Field(description="Those of the moment.")


class RuleFilters(PageQuery):
    signal: Text | None = None
    severity: Severity | None = None
    state: State | None = None
    sort: Literal["id:asc", "id:desc"] = "id:asc"


class Gone(BaseModel):
    id: str
    deleted: Literal[True]


AlertState = Literal["pending", "firing", "resolved"]


class Alert(BaseModel):
    id: str = Field(examples=["alt_01a1fe3176a89d25de9e38917547"])
    rule_id: str
    title: str
    signal: str
    comparison: Comparison
    threshold: float
    subject: str = Field(description="What it is about: the id of an upstream, an org, a key …, or `installation`.")
    subject_name: str | None = Field(description="The name of that org, key, upstream, host or channel.")
    org_id: str | None
    severity: Severity
    state: AlertState
    value: float = Field(description="The last reading.")
    pending_at: Moment
    firing_at: Moment | None
    resolved_at: Moment | None
    told_at: Moment | None = Field(description="When channels were told that it fires; null while it is silenced.")
    incident_id: str | None = Field(description="Shared by the alerts that began to fire together.")
    acknowledged_at: Moment | None
    acknowledged_by: str | None
    note: str | None
    silenced: bool = Field(description="Whether a silence matches it now.")

    @model_validator(mode="before")
    @classmethod
    def _titled(cls, found: dict[str, Any]) -> dict[str, Any]:
        return found | {"title": title_of(found["rule_id"])}


class AlertChange(BaseModel):
    state: AlertState
    value: float
    at: Moment


class AlertDetails(Alert):
    rule: RuleDetails
    history: list[AlertChange]


class AlertFilters(PageQuery, Period):
    """In a period are the alerts that began before its end and were not resolved before its start."""

    state: AlertState | None = None
    severity: Severity | None = None
    rule_id: Text | None = None
    subject: Text | None = None
    org_id: Text | None = None
    incident_id: Text | None = None
    acknowledged: bool | None = Field(None, description="Only alerts that were acknowledged, or that were not.")
    sort: Literal["pending_at:desc", "pending_at:asc", "severity:desc", "severity:asc"] = "pending_at:desc"


class AlertNote(ChangeBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"note": "I look after it."}]})

    note: Note | None = None


class NewSilence(ChangeBody):
    """Alerts that match all that is given are not told while it lasts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"reason": "The GPU server is moved.", "subjects": ["ups_1"], "ends_at": "2026-12-01T18:00:00Z"}
            ]
        }
    )

    reason: Annotated[str, Field(min_length=1, max_length=1000)]
    rules: Names | None = Field(None, description="Only alerts of these rules.")
    subjects: Names | None = Field(None, description="Only alerts about these subjects.")
    org_ids: Names | None = Field(None, description="Only alerts about these orgs.")
    starts_at: Moment | None = Field(None, description="Default: now.")
    ends_at: Moment


class Silence(BaseModel):
    id: str
    reason: str
    rules: list[str] | None
    subjects: list[str] | None
    org_ids: list[str] | None
    starts_at: Moment
    ends_at: Moment
    state: Literal["planned", "active", "ended"]
    created_by: str | None
    created_at: Moment


class SilenceFilters(PageQuery):
    state: Literal["planned", "active", "ended"] | None = None
    sort: Literal["ends_at:desc", "ends_at:asc", "created_at:desc", "created_at:asc"] = "ends_at:desc"


WITH_USERNAME: JsonDict = {"properties": {"username": {"type": "string"}}, "required": ["username"]}
UNPROTECTED: JsonDict = {"properties": {"tls": {"const": "none"}}, "required": ["tls"]}


class MailServer(ChangeBody):
    """How an email is sent."""

    model_config = ConfigDict(json_schema_extra={"not": {"allOf": [WITH_USERNAME, UNPROTECTED]}})

    host: Annotated[str, Field(min_length=1, max_length=253, pattern=PRINTABLE)]
    port: int | None = Field(None, ge=1, le=65_535, description="Default: 587, with tls 465, without 25.")
    tls: Literal["starttls", "tls", "none"] = "starttls"
    username: Annotated[str, Field(max_length=320, pattern=PRINTABLE)] | None = Field(
        None, description="With the secret as its password. It is not sent without TLS."
    )
    sender: MailAddress
    recipients: Annotated[list[MailAddress], Field(min_length=1, max_length=20)]


class _ChannelFields(ChangeBody):
    severity: Severity = Field("info", description="The least severity that is told.")
    rules: Names | None = Field(None, description="Only alerts of these rules. Default: all.")
    org_ids: Names | None = Field(None, description="Only alerts about these orgs. Default: all alerts.")
    state: State = "active"


def _of_kind(kind: ChannelKind) -> JsonDict:
    """What a channel of this kind needs, and what is for others."""
    refused: list[JsonValue] = [{"required": [name]} for name in NOT_TAKEN[kind]]
    then: JsonDict = {"required": [NEEDED[kind]], "not": {"anyOf": refused}}
    return {"if": {"properties": {"kind": {"const": kind}}}, "then": then}


OF_EACH_KIND: JsonDict = {
    "allOf": [
        *map(_of_kind, NEEDED),
        {"if": {"properties": {"mail": WITH_USERNAME}, "required": ["mail"]}, "then": {"required": ["secret"]}},
    ]
}


class NewChannel(_ChannelFields):
    model_config = ConfigDict(
        json_schema_extra={
            **OF_EACH_KIND,
            "examples": [{"name": "on-call", "kind": "webhook", "url": "https://example.com/alerts"}],
        }
    )

    name: Name
    kind: ChannelKind
    url: Url | None = Field(
        None, description="Of a webhook or Slack. Of PagerDuty, the address of its Events API v2 if it is another."
    )
    secret: Secret | None = Field(
        None,
        description="Of a webhook, whsec_ and at least 24 bytes in base64; made where it is left out. Of PagerDuty, "
        "the integration key. Of email, the password. Slack has none: its URL is the secret.",
    )
    mail: MailServer | None = Field(None, description="Of email.")


class ChannelChanges(_ChannelFields):
    """Fields that are left out stay as they are. A new address needs its secret again: of a webhook, one is made."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"severity": "critical"}]})

    name: Name = Field(default_factory=str)
    url: Url | None = None
    secret: Secret | None = None
    mail: MailServer | None = None


class Mail(BaseModel):
    host: str
    port: int
    tls: Literal["starttls", "tls", "none"]
    username: str | None
    sender: str
    recipients: list[str]


class _Told(BaseModel):
    id: str = Field(examples=["chn_01a1fe3176a89d25de9e38917547"])
    name: str
    url: str = Field(description="Of Slack without its secret path.")
    last_four: str | None = Field(description="Of the secret.")
    state: State
    failures: int = Field(description="How many attempts failed since one succeeded.")
    failed_at: Moment | None
    last_error: str | None
    told_at: Moment | None = Field(description="When something was told over it last.")
    created_at: Moment
    updated_at: Moment


class Channel(_Told):
    kind: ChannelKind
    severity: Severity
    rules: list[str] | None
    org_ids: list[str] | None
    mail: Mail | None


class ChangedChannel(Channel):
    secret: str | None = Field(description="A secret that was made just now; it is never shown again.")


class ChannelFilters(PageQuery):
    kind: ChannelKind | None = None
    state: State | None = None
    sort: Literal["created_at:desc", "created_at:asc"] = "created_at:desc"


class _WebhookFields(ChangeBody):
    events: Annotated[list[Event], Field(min_length=1, max_length=20)] | None = Field(
        None, description="Only these events. Default: all."
    )
    state: State = "active"


class NewWebhook(_WebhookFields):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "billing", "url": "https://example.com/tollgate"}]}
    )

    name: Name
    url: Url
    secret: Secret | None = Field(
        None, description="whsec_ and at least 24 bytes in base64; made where it is left out."
    )


class WebhookChanges(_WebhookFields):
    """Fields that are left out stay as they are. With a new address a new secret is made, unless one is sent."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"events": ["balance.low"]}]})

    name: Name = Field(default_factory=str)
    url: Url = Field(default_factory=str)
    secret: Secret | None = None


class Webhook(_Told):
    events: list[Event] | None


class ChangedWebhook(Webhook):
    secret: str | None = Field(description="A secret that was made just now; it is never shown again.")


class WebhookFilters(PageQuery):
    state: State | None = None
    sort: Literal["created_at:desc", "created_at:asc"] = "created_at:desc"


class DeliveryAttempt(BaseModel):
    at: Moment
    took_ms: int
    status: int | None = Field(description="The status of HTTP or SMTP.")
    error: str | None
    answer: str | None = Field(description="The beginning of what the receiver answered.")


class Delivery(BaseModel):
    id: str = Field(description="The `webhook-id` of a webhook, the same in each attempt.")
    channel_id: str
    event: str
    content: dict[str, Any]
    state: Literal["waiting", "sent", "failed"]
    tries: int
    attempts: list[DeliveryAttempt] = Field(description="The last ten.")
    due_at: Moment | None = Field(description="When it is sent next; null unless it waits.")
    created_at: Moment
    ended_at: Moment | None


class DeliveryFilters(PageQuery, Period):
    channel_id: Text | None = None
    event: Text | None = None
    state: Literal["waiting", "sent", "failed"] | None = None
    sort: Literal["created_at:desc", "created_at:asc"] = "created_at:desc"


class AlertDeliveryFilters(DeliveryFilters):
    alert_id: Text | None = Field(None, description="Only what told of this alert. A message lists 50 at most.")
