package envoy

// What the manifests of [GatewayAdditions] say about themselves.
const (
	aboutGateway = `What to add to a Gateway of Envoy Gateway (1.9 with Envoy 1.40) that you run, so that
it asks llm-gateway about every request to the model server. Envoy Gateway's own
configuration must have extensionApis.enableBackend and .enableEnvoyPatchPolicy true.
What closes comes first, the route to the model server last: kubectl apply -f keeps
that order. Take the route away first when you take all of it away.
Prove the result from outside: llm-gateway check --listener URL`

	whyEnvoyProxy = `For exact charges. Without it a client that leaves makes Envoy throw away what the
sidecar has not read yet, the usage of the answer among it. Name it in the Gateway's
spec.infrastructure.parametersRef, or add the patch to the EnvoyProxy that is there.`

	whyClientPolicy = `One reading of a path and of header names before anybody judges them, and bodies above
Envoy Gateway's 32 KiB. It holds for the whole listener. A listener has one such policy:
if yours has one already, move these fields there.`

	whyPatch = `What Envoy Gateway's kinds cannot say. First a second lock, which holds when the
policies of the route are gone; then the gate's allowed modes and trailers; headers that
no client may write; what Envoy answers itself as the JSON that OpenAI's clients read;
bodies up to the limit, no WebSockets, retries among replicas. Without it, or where
patches are turned off, gate and lock below still close, and refusals have other words.
Its status must be Programmed: ResourceNotFound means that the listener has another
name in xDS (an older listener on the same port, or XDSNameSchemeV2).`

	whyGateBackend = `The sidecars' gRPC. Without it Envoy Gateway answers 500 in place of models. A Unix
socket must be mounted into Envoy's pod.`

	whyGatePolicy = `The gate: the sidecar sees each request of the route whole, and its answer as it
streams. It never fails open. Without it both locks refuse every request; if Envoy
Gateway refuses it, the route answers 500.`

	whyLockPolicy = `The lock: nothing goes to the model server that the sidecar did not admit in metadata
that no client can write, also when the stream to the sidecar ends cleanly, which Envoy
takes for "go on". A SecurityPolicy of your Gateway does not hold on this route then:
add what you need of it here. If Envoy Gateway refuses it, the route answers 500.`

	whyModelPolicy = `Long answers, no limit of 1,024 requests, and retries of nothing that has reached the
model server: it could be paid twice. Without it answers of the model server are cut by
the Gateway's time limits.`

	whyPagesBackend = `The sidecars' HTTP: what a key has used, health, documentation. Models do not need it.`

	whyPagesRoute = `The sidecars' pages, which check keys themselves and never reach the model server. Leave
out those whose paths are yours.`

	whyModelBackend = `The model server. Another HTTPRoute to this Backend would pass neither gate nor lock:
only this namespace can make one, unless a ReferenceGrant lets others.`

	whyAuthority = `The authority of the model server's certificate.`

	whyTLSPolicy = `TLS to the model server, whose name is checked. Without it requests go in the clear.`

	whyModelRoute = `Models, under /v1. The policies above make it the gateway's. Headers that would hide the
usage, or tell about the client, do not go on; nor do the model server's own CORS headers.`
)
