"""Calls the gateway as a user of the OpenAI SDK does and prints what happened as one JSON document."""

import json
import os
import urllib.error
import urllib.request

import openai

GATEWAY = os.environ["GATEWAY"]
MESSAGES = [{"role": "user", "content": "Say hello to the world."}]

sent = 0


def count(_request):
    global sent
    sent += 1


def client(key):
    http = openai.DefaultHttpxClient(event_hooks={"request": [count]})
    return openai.OpenAI(api_key=key, base_url=GATEWAY + "/v1", http_client=http, timeout=30)


def usage_of(u):
    if u is None:
        return {}
    return {"prompt": u.prompt_tokens, "completion": getattr(u, "completion_tokens", 0) or 0, "total": u.total_tokens}


results = {}


def run(name, call):
    global sent
    sent = 0
    try:
        out = call()
    except openai.APIStatusError as e:
        out = {"error": type(e).__name__, "status": e.status_code, "code": e.code or "", "param": e.param or ""}
    results[name] = out | {"sent": sent}


good, wrong, spent = client(os.environ["KEY"]), client("sk-wrong-0123456789abcdef"), client(os.environ["SPENT_KEY"])


def chat(c=good, **more):
    r = c.chat.completions.create(messages=MESSAGES, **more)
    return {"text": r.choices[0].message.content} | usage_of(r.usage)


def chat_stream(**more):
    text, usage = "", None
    for chunk in good.chat.completions.create(messages=MESSAGES, stream=True, **more):
        usage = chunk.usage or usage
        text += "".join(c.delta.content or "" for c in chunk.choices)
    return {"text": text} | usage_of(usage)


def completion():
    r = good.completions.create(model="sdk-completion", prompt="Say hello.", max_tokens=20)
    return {"text": r.choices[0].text} | usage_of(r.usage)


def completion_stream():
    text, usage = "", None
    for chunk in good.completions.create(model="sdk-completion_stream", prompt="Say hello.", max_tokens=20, stream=True):
        usage = chunk.usage or usage
        text += "".join(c.text or "" for c in chunk.choices)
    return {"text": text} | usage_of(usage)


def embedding():
    r = good.embeddings.create(model="sdk-embedding", input="hello world")
    return {"text": "vector" if all(isinstance(x, float) for x in r.data[0].embedding) and r.data[0].embedding else ""} | usage_of(r.usage)


def no_key():
    count(None)
    request = urllib.request.Request(GATEWAY + "/v1/chat/completions", b"{}", {"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request)
    except urllib.error.HTTPError as e:
        body = json.load(e)
        return {"status": e.code, "code": body["error"]["code"], "header": e.headers["WWW-Authenticate"].split()[0]}
    return {"status": 200}


run("chat", lambda: chat(model="sdk-chat", max_tokens=20))
run("chat_stream", lambda: chat_stream(model="sdk-chat_stream", max_tokens=20))
run("chat_stream_usage", lambda: chat_stream(model="sdk-chat_stream_usage", max_tokens=20, stream_options={"include_usage": True}))
run("completion", completion)
run("completion_stream", completion_stream)
run("embedding", embedding)
run("models", lambda: {"models": len(good.models.list().data)})
run("no_key", no_key)
run("wrong_key", lambda: chat(wrong, model="sdk-wrong"))
run("spent", lambda: chat(spent, model="sdk-spent", max_tokens=20))
run("bad_max_tokens", lambda: chat(model="sdk-bad", max_tokens=-1))
run("bad_n", lambda: chat(model="sdk-bad", n=0))
run("unknown_path", lambda: {"text": str(good.files.list())})
print(json.dumps(results))
