package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// answering is a server that gives every request the same status.
func answering(t *testing.T, status int) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/health" {
			status = http.StatusTeapot // a wrong question gets no good answer
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
	}))
	t.Cleanup(server.Close)
	return server
}

func TestHealthcheck_onlyOK(t *testing.T) {
	for status, want := range map[int]int{
		http.StatusOK:                 exitDone,
		http.StatusNoContent:          exitFailed,
		http.StatusFound:              exitFailed,
		http.StatusForbidden:          exitFailed,
		http.StatusServiceUnavailable: exitFailed,
	} {
		url := answering(t, status).URL + "/health"
		code, stdout, stderr := call(t, "healthcheck", "--url", url)
		if code != want || (want == exitDone) != (stdout == "healthy\n") || (want == exitDone) != (stderr == "") {
			t.Errorf("%d: exit code %d, stdout %q, stderr %q", status, code, stdout, stderr)
		}
		code, stdout, _ = call(t, "healthcheck", "--json", "--url", url)
		var view healthView
		if err := json.Unmarshal([]byte(stdout), &view); err != nil {
			t.Fatal(err)
		}
		if code != want || view.Status != status || view.Healthy != (want == exitDone) || view.URL != url {
			t.Errorf("%d: exit code %d, %s", status, code, stdout)
		}
	}
}

func TestHealthcheck_nobodyThere(t *testing.T) {
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := call(t, "healthcheck", "--url", "http://"+address+"/health")
	if code != exitFailed || stdout != "" || !strings.Contains(stderr, "does not answer: ") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestHealthcheck_configuredListener(t *testing.T) {
	server := answering(t, http.StatusOK)
	ask := func(env ...string) int {
		t.Chdir(t.TempDir())
		var stdout, stderr bytes.Buffer
		return run(t.Context(), []string{"healthcheck"}, env, strings.NewReader(""), &stdout, &stderr)
	}
	port := server.URL[strings.LastIndex(server.URL, ":"):]
	if code := ask("LLMGW_LISTEN=0.0.0.0" + port); code != exitDone {
		t.Errorf("exit code %d for a listener on all addresses", code)
	}
	if code := ask("LLMGW_LISTEN=0.0.0.0"+port, "RATE_LIMIT_WINDOW=never"); code != exitFailed {
		t.Errorf("exit code %d with a broken configuration", code)
	}
}

func TestListenerHealth(t *testing.T) {
	for listen, want := range map[string]string{
		Default().Listen: "http://127.0.0.1:12000/health",
		"10.0.0.7:80":    "http://10.0.0.7:80/health",
		"[::]:12000":     "http://[::1]:12000/health",
		"[fd00::1]:8080": "http://[fd00::1]:8080/health",
	} {
		if got, err := listenerHealth(listen); err != nil || got != want {
			t.Errorf("listenerHealth(%q) = %q, %v, want %q", listen, got, err, want)
		}
	}
	if got, err := listenerHealth("gateway:80"); err == nil {
		t.Errorf("a name gave %q", got)
	}
}

func TestHealthcheck_wrongURL(t *testing.T) {
	for _, url := range []string{
		"", "127.0.0.1:12000", "/health", "ftp://host/health", "http:///health", "http://%zz/canary",
		"http://user:canary@host/health", "http://host/health?key=canary", "http://host/health#canary",
	} {
		code, stdout, stderr := call(t, "healthcheck", "--url", url)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, "--url: write a URL") || strings.Contains(stderr, "canary") {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", url, code, stdout, stderr)
		}
	}
}

// A probe of a container that listens on no port.
func TestHealthcheck_unixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" && r.URL.Path != "/healthz/live" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"--unix-socket", path}, exitDone},
		{[]string{"--unix-socket", path, "--url", "http://localhost/healthz/live"}, exitDone},
		{[]string{"--unix-socket", path, "--url", "http://localhost/healthz/ready"}, exitFailed},
		{[]string{"--unix-socket", path + "s"}, exitFailed},
		{[]string{"--unix-socket", "api.sock"}, exitUsage},
		{[]string{"--unix-socket", ""}, exitUsage},
		{[]string{"--unix-socket", path, "--url", "/healthz/live"}, exitUsage},
	} {
		code, stdout, stderr := call(t, append([]string{"healthcheck"}, c.args...)...)
		if code != c.want || (c.want == exitDone) != (stdout == "healthy\n") || (c.want == exitDone) != (stderr == "") {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", c.args, code, stdout, stderr)
		}
	}
}

type hung struct{}

func (hung) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestAskHealth_threeSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now() // of the bubble's own clock
		view := askHealth(t.Context(), hung{}, "http://127.0.0.1:12000/health")
		if waited := time.Since(start); waited != 3*time.Second {
			t.Errorf("waited %s, want 3s", waited)
		}
		if view.Healthy || view.failure == nil || !strings.Contains(view.failure.Error(), "within 3s") {
			t.Errorf("got %+v", view)
		}
	})
}
