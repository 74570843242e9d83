package envoy

// What the document of [Additions] says about its parts.
const (
	aboutAdditions = `What to add to an Envoy (1.40 or newer) that you run, so that it asks llm-gateway
about every request to the model server. Each key below says where its content
goes. Prove the result from outside: llm-gateway check --listener URL`

	whereRuntime = `The bootstrap: put the layer first in layered_runtime.layers.`
	whyGraceful  = `For exact charges. Without it a client that leaves makes Envoy throw away what
the sidecar has not read yet, the usage of the answer among it.`

	whereClusters  = `static_resources.clusters: append.`
	whyGateCluster = `The sidecar's gRPC, which the gate asks: Envoy does not start without it. Without the
limits here no more than 1,024 requests run at a time.`
	whyPagesCluster = `The sidecar's HTTP: what a key has used, health, documentation. Only
the routes to those pages need it; models do not.`
	whyModelCluster = `The model server, with a lock in it: nothing leaves for it that was not admitted, by
whichever listener and route it comes. If you have a cluster for it, leave this one out
and print again with --cluster NAME: the lock below guards the cluster of that name and
no other.`

	whereManager = `The listener's http_connection_manager: set these fields. They hold for its other
routes too. Where you have mappers of local replies, put these before them.`
	whyPaths = `One reading of a path, before anybody judges it. Without it //v1/chat/completions
and its like miss our routes and meet whichever of yours fits.`
	whyUnderscores = `x_llmgw_y is x-llmgw-y to many servers. Without it a client can write our headers
in a way that the gate does not see. DROP_HEADER will do as well.`
	whyRequestIDs = `Without it answers have no x-request-id, and nobody finds them in the logs.`
	whyReplies    = `What Envoy itself answers on our routes, as the JSON that OpenAI's clients read.
The first mapper keeps what the sidecar answers from being written over by a
body_format of yours. Without them refusals are as firm, and have other bodies.`

	whereFilters = `http_connection_manager.http_filters: put them right before the router, in this
order, and nothing between them. Compression, CORS and all else stays before them.
No other filter may write dynamic metadata of the namespace llmgw.`
	whyStrip = `On model routes: headers that no client may write. Without it x-envoy-retry-on and
its like let clients of an internal network have Envoy repeat paid requests.`
	whyGate = `The gate. It is off but on routes that have it on, with the small modes there are
here: so your other routes work without the sidecar. Without it the lock refuses all.`
	whyLock = `The lock, on for every route of the listener: nothing goes to the model server's
cluster that the sidecar did not admit in metadata that no client can write, also
when the stream to the sidecar ends cleanly, which Envoy takes for "go on", and also
by a route that has no gate. Without it a stopping sidecar lets requests through.`

	whereRoutes = `The virtual host's routes: put them first, in this order. Each virtual host that is
to serve models needs them.`
	whyPages = `The sidecar's pages, which check keys themselves and never reach the model server.
Leave out those whose paths are yours; only the page is missing then.`
	whyModels = `Models: the gate is on, with whole requests and streamed answers. Without the
overrides the gate never sees a body and admits nobody; without timeout 0s answers
end after 15 s; without request_body_buffer_limit bodies above 1 MiB are 413; without
upgrade_configs a listener with WebSockets lets them through by other filters.`
)
