"""What is sent to the routes of models, beyond what a schema can say of it."""

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    """Model servers know rules between members. What is wrong for other reasons
    stays so."""
    body = case.body = plain(case.body)
    if not isinstance(body, dict):
        return
    if isinstance(body.get("prompt"), list) and body.get("n") in range(2, 129):
        # The answers of one request are bounded: prompts times n.
        body["n"] = min(body["n"], max(1, 128 // max(1, len(body["prompt"]))))
    if isinstance(body.get("stream_options"), dict) and (body.get("stream") is None or body["stream"] is False):
        # It is for streams only. As if/then in the schema it would make two
        # requests of one in Redoc.
        body["stream"] = True


def plain(value):
    """To JSON Schema 5.0 is a whole number like 5. The gate refuses it, because
    model servers read it in different ways; a schema cannot say so."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value
