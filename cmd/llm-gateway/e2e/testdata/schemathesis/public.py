"""What is sent to the routes of models, beyond what a schema can say of it."""

import schemathesis


@schemathesis.hook
def map_body(context, body):
    body = plain(body)
    if isinstance(body, dict) and isinstance(body.get("prompt"), list) and body.get("n") in range(2, 129):
        # Model servers bound the answers of one request: prompts times n. What is
        # wrong for other reasons stays so.
        body["n"] = min(body["n"], max(1, 128 // max(1, len(body["prompt"]))))
    return body


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
