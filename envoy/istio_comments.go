package envoy

// What the manifests of [Istio] say about their parts, beside what the pieces
// have in common with other Envoys.
const (
	aboutIstio = `What to apply so that a gateway workload of Istio asks llm-gateway about every request
to the model server (kubectl apply --server-side -f FILE). Istio says nothing of a
patch that it drops: prove the result from outside with
llm-gateway check --listener URL`

	whyIstioGateway = `The listener and its name. Leave it out where a Gateway of yours has the same port,
and this name among its hosts. There must be no VirtualService for the name: the
EnvoyFilter brings the whole virtual host, and Envoy takes no second one.`

	whyEnvoyFilter = `All that the gateway's Envoy is told, as one object, so that it is there or not as a
whole. Without it nobody is served: there are no routes.`
	whyIstioGateCluster = `The sidecar's gRPC, which the gate asks. Without it everything is refused; without the
limits here no more than 1,024 requests run at a time.`
	whyIstioModels = `The model server, with a lock in it: nothing leaves for it that was not admitted,
whatever becomes of the patches below. Without it everything is refused. TLS, the names
that a certificate may have and the limits are here: neither ServiceEntry nor
DestinationRule is needed.`
	whyIstioMeshModels = `The way to the model server's cluster, which keeps what your DestinationRule says (write
tls.sni and tls.subjectAltNames there: a name is not taken from the request). It has a lock
in it: nothing gets through here that was not admitted, whatever becomes of the
patches below. Without it everything is refused.`
	whyIstioStrip = whyStrip + `
It stands on all ports, off: our routes turn it on.`
	whyIstioLock = `A second lock, on for every route of every port of this workload. It refuses before the
connection to the model server is chosen, and guards it by the name of your own cluster too,
if you gave one: without it a route of yours to that cluster passes by the gate.`
	whyIstioHost = `The routes of this name. Pages of the sidecar check keys themselves. Models: the gate
is on, with whole requests and streamed answers. Without the overrides the gate never
sees a body and admits nobody; without timeout 0s answers end after 15 s; without
request_body_buffer_limit bodies above 1 MiB are 413; without upgrade_configs WebSockets
are let through to the gate, which waits for their end.`

	whyIstioPod = `Added to the gateway's Deployment, whose other fields stay. The annotation sets a runtime
flag of Envoy: without it a client that leaves makes Envoy throw away what the sidecar
has not read yet, the usage of the answer among it. If there is an annotation of
this name already, write both into one.`
	whyIstioSidecar = `The sidecar shares folders with the proxy and runs as the same user, to whom alone the
sockets are open. A gateway has several pods, so the books are in PostgreSQL: the Secret
llm-gateway has DATABASE_URL, and REDIS_URL and LLM_API_KEY if there are any. Without
the Secret the pod does not start.`
)
