"""From an alert and a sink to a request, with the secrets that it takes (contract I.4)."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from manager.core.alert_catalog import SLACK, WEBHOOK, Catalog, Sink, secret_in, variables
from manager.core.alert_payloads import Alert, pagerduty_body, slack_body, webhook_body
from manager.core.alert_rows import Answer
from spritemesh import jsontext
from spritemesh.ids import has_control
from spritemesh.jsontext import JSON
from spritemesh.secrets import Scrubber
from spritemesh.times import format_utc
from spritemesh.traceparent import trace_headers

if TYPE_CHECKING:
    from manager.alerts.posting import Post, Poster

# Where PagerDuty is; a sink's `endpoint` in the catalog comes first, then this variable (L28).
PAGERDUTY_VARIABLE = "OPS_MANAGER_ALERT_PAGERDUTY_ENDPOINT"
PAGERDUTY_ENDPOINT = "https://events.pagerduty.com/v2/enqueue"

# A sink that gave no answer in time is not asked again in the same pass: it would cost its time limit for
# each alert. The alerts wait for the next try.
_SILENT = frozenset({"sink_timeout", "sink_unreachable"})


class Sender:
    """Tells sinks, one request after the other. Close it at the end."""

    def __init__(self, environment: Mapping[str, str], clock: Callable[[], float]) -> None:
        self._environment = environment
        self._clock = clock
        self._poster: Poster | None = None
        self._scrubber = Scrubber(())
        # Id of a sink -> why it is not asked again.
        self._silent: dict[str, str] = {}

    def close(self) -> None:
        if self._poster is not None:
            self._poster.close()

    def use(self, catalog: Catalog) -> None:
        """Take the secrets of this catalog out of answers from now on."""
        values = (self._secret(name) for name in variables(catalog.sinks.values()))
        self._scrubber = Scrubber(filter(None, values))

    def silence(self, sink: Sink) -> Answer | None:
        """What stands for the answer of a sink that is not asked again; None when it may be asked."""
        if sink.id not in self._silent:
            return None
        return Answer(self._silent[sink.id], None, "gave no answer earlier in this pass; not asked again")

    def send(self, sink: Sink, alert: Alert) -> Answer:
        """Ask one sink. Raises nothing for what a sink or its secret is to blame for."""
        unset = [name for name in sink.secrets.values() if name and not self._secret(name)]
        if unset:
            return Answer("missing_secret", None, f"not set: {' '.join(unset)}")
        post = self._post(sink, alert)
        if post is None:
            return Answer("sink_unreachable", None, "its address is no http or https URL")
        answer = self._get_poster().send(post, self._scrubber)
        if answer.reason in _SILENT:
            self._silent[sink.id] = answer.reason
        return answer

    def _post(self, sink: Sink, alert: Alert) -> "Post | None":
        from manager.alerts.posting import Post

        headers = [("Content-Type", "application/json")]
        if not has_control(alert.trace_id):
            headers += trace_headers(alert.trace_id)
        body: dict[str, JSON]
        if sink.type == WEBHOOK:
            url = self._secret(sink.secrets["urlEnv"])
            if sink.secrets["authTokenEnv"]:
                headers.append(("Authorization", f"Bearer {self._secret(sink.secrets['authTokenEnv'])}"))
            headers += sink.config["headers"].items()
            body = webhook_body(alert, sink, emitted_at=format_utc(self._clock()))
        elif sink.type == SLACK:
            url = self._secret(sink.secrets["webhookUrlEnv"])
            body = slack_body(alert, sink)
        else:  # PagerDuty: the catalog was checked
            url = sink.endpoint or self._environment.get(PAGERDUTY_VARIABLE) or PAGERDUTY_ENDPOINT
            body = pagerduty_body(alert, sink, routing_key=self._secret(sink.secrets["routingKeyEnv"]))
        if not url.startswith(("https://", "http://")):
            return None
        return Post(url, tuple(headers), jsontext.encode(body), float(sink.timeout_seconds))

    def _secret(self, name: str | None) -> str:
        return secret_in(self._environment, name)

    def _get_poster(self) -> "Poster":
        """The HTTP side, which costs a tenth of a second and is loaded when there is something to send."""
        if self._poster is None:
            from manager.alerts.posting import Poster

            self._poster = Poster()
        return self._poster
