package envoy

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseUpstream(t *testing.T) {
	for raw, want := range map[string]Upstream{
		"http://host:8080":                          {Host: "host", Port: 8080, BasePath: "/v1"},
		"http://host:8080/":                         {Host: "host", Port: 8080, BasePath: "/v1"},
		"http://host":                               {Host: "host", BasePath: "/v1"},
		"https://api.openai.com":                    {TLS: true, Host: "api.openai.com", BasePath: "/v1"},
		"https://API.OpenAI.com//":                  {TLS: true, Host: "api.openai.com", BasePath: "/v1"},
		"https://host/v1":                           {TLS: true, Host: "host", BasePath: "/v1"},
		"https://host/v1/":                          {TLS: true, Host: "host", BasePath: "/v1"},
		"https://host/openai/v1":                    {TLS: true, Host: "host", BasePath: "/openai/v1"},
		"http://localhost:8080/v1/completions":      {Host: "localhost", Port: 8080, BasePath: "/v1"},
		"http://localhost:8080/v1/chat/completions": {Host: "localhost", Port: 8080, BasePath: "/v1"},
		"https://host/api/embeddings/":              {TLS: true, Host: "host", BasePath: "/api"},
		"https://host/x/models":                     {TLS: true, Host: "host", BasePath: "/x"},
		"http://host/chat/completions":              {Host: "host", BasePath: "/"},
		"http://host/chat/models-v2":                {Host: "host", BasePath: "/chat/models-v2"},
		"localhost:8080":                            {Host: "localhost", Port: 8080, BasePath: "/v1"},
		"10.0.0.1:80/api":                           {Host: "10.0.0.1", Port: 80, BasePath: "/api"},
		"http://[::1]:9000/v1":                      {Host: "::1", Port: 9000, BasePath: "/v1"},
		" http://host:1/v1\n":                       {Host: "host", Port: 1, BasePath: "/v1"},
		"HTTPS://host":                              {TLS: true, Host: "host", BasePath: "/v1"},
	} {
		got, err := ParseUpstream(raw)
		if err != nil {
			t.Errorf("%q: %v", raw, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", raw, diff)
		}
	}
}

func TestParseUpstreamRefuses(t *testing.T) {
	const secret = "hunter2"
	for raw, hint := range map[string]string{
		"":                                  "empty",
		"localhost":                         "http:// or https://",
		"api.example.com/v1":                "http:// or https://",
		"ftp://host":                        "http or https",
		"unix:///run/model.sock":            "http or https",
		"http://":                           "host is missing",
		"http:///v1":                        "host is missing",
		"http://user:" + secret + "@host":   "user and password",
		"http://host/v1?key=" + secret:      "?",
		"http://host/v1?":                   "?",
		"http://host/v1#" + secret:          "#",
		"http://host/v1#":                   "#",
		"http://host:0/v1":                  "1 to 65535",
		"http://host:65536":                 "1 to 65535",
		"http://host:":                      "1 to 65535",
		"http://host:" + secret:             "cannot be read",
		"http://" + secret + " x/":          "cannot be read",
		"http://host/a/../" + secret:        "plain",
		"http://host//" + secret:            "plain",
		"http://host/%2f" + secret:          "plain",
		"http://host/a b" + secret:          "plain",
		"http://host/%zz" + secret:          "cannot be read",
		"http://[fe80::1%25eth0]:80/v1":     "zone",
		"http://" + secret + ".ünï.example": "xn--",
		"http://a..b":                       "DNS name",
		"http://" + strings.Repeat("a.", 130) + "example": "too long",
	} {
		up, err := ParseUpstream(raw)
		switch {
		case err == nil:
			t.Errorf("%q: accepted as %+v", raw, up)
		case !errors.Is(err, ErrUpstream):
			t.Errorf("%q: %v is no ErrUpstream", raw, err)
		case !strings.Contains(err.Error(), hint):
			t.Errorf("%q: %q does not say %q", raw, err, hint)
		case strings.Contains(err.Error(), secret):
			t.Errorf("%q: the error %q repeats a secret", raw, err)
		}
	}
}

func TestAuthority(t *testing.T) {
	for raw, want := range map[string]string{
		"http://host":             "host",
		"http://host:80":          "host",
		"http://host:443":         "host:443",
		"https://host:443":        "host",
		"https://host:80":         "host:80",
		"http://[2001:db8::1]":    "[2001:db8::1]",
		"http://[2001:db8::1]:81": "[2001:db8::1]:81",
	} {
		up, err := ParseUpstream(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := up.authority(); got != want {
			t.Errorf("%q: Host %q, want %q", raw, got, want)
		}
	}
}

func TestPrefix(t *testing.T) {
	for base, want := range map[string]string{"": "/v1/", "/v1": "/v1/", "/": "/", "/openai/v1": "/openai/v1/"} {
		if got := (Upstream{BasePath: base}).prefix(); got != want {
			t.Errorf("base %q: prefix %q, want %q", base, got, want)
		}
	}
}
