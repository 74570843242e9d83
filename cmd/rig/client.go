package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client sends requests and reports exactly what came back. It never retries,
// decompresses or follows a redirect.
type Client struct {
	base string
	http *http.Client
}

// NewClient returns a client for a base such as "http://127.0.0.1:12000".
// With h2c it speaks HTTP/2 by prior knowledge, else HTTP/1.1.
func NewClient(base string, h2c bool) *Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2c)
	protocols.SetUnencryptedHTTP2(h2c)
	t := &http.Transport{
		Protocols:           protocols,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 4096,
		IdleConnTimeout:     30 * time.Second,
	}
	return &Client{base: base, http: &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Abort says when the client leaves on purpose. The zero value never leaves.
type Abort struct {
	Bytes  int             // after that many body bytes
	Events int             // after that many SSE events
	Done   bool            // right after [DONE], before the end of the stream
	Signal <-chan struct{} // when closed, at whatever point the exchange is
	// When leaves as soon as it says so of the events so far, nil = never.
	When func([]Event) bool
}

// Request is one request of a client.
type Request struct {
	Method string // "" = POST
	Path   string // as it goes on the wire, "" = /v1/chat/completions
	Key    string // sent as Bearer credential, "" = none
	Header http.Header
	Body   []byte
	Type   string // content type, "" = application/json when there is a body
	// Chunked leaves out the content length.
	Chunked bool
	Abort   Abort
}

// Event is one SSE event with the time its last byte was read.
type Event struct {
	Data string
	At   time.Time
}

// Received is everything a client got. Status is 0 when no answer came.
type Received struct {
	Status   int
	Proto    string
	Header   http.Header
	Body     []byte
	Events   []Event // of a text/event-stream answer
	Done     bool    // data: [DONE] was received
	Complete bool    // the answer's end was received as its protocol marks it
	Aborted  bool    // the client left as asked
	Err      error   // what ended the exchange early
	Started  time.Time
	Headers  time.Time // when the answer's headers were read
	Ended    time.Time
}

// SawEnd tells whether the client has the whole answer of a 2xx: a stream's
// [DONE] or clean end, or a complete document.
func (r Received) SawEnd() bool { return r.Status/100 == 2 && (r.Done || r.Complete) }

// Problem is the error body of the gateway and of OpenAI's API.
type Problem struct {
	Error struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    string  `json:"code"`
	} `json:"error"`
	Detail string `json:"detail"`
}

// Problem decodes the error body; ok is false when it is not one.
func (r Received) Problem() (p Problem, ok bool) {
	err := json.Unmarshal(r.Body, &p)
	return p, err == nil && p.Error.Message != ""
}

// Do sends a request and reads the answer to its end, its cut, or the moment
// the request says to leave.
func (c *Client) Do(ctx context.Context, in Request) Received {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := Received{Started: time.Now()}
	defer func() { out.Ended = time.Now() }()
	if in.Abort.Signal != nil {
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			select {
			case <-in.Abort.Signal:
				cancel()
			case <-stop:
			}
		}()
	}
	req, err := c.request(ctx, in)
	if err != nil {
		out.Err = err
		return out
	}
	res, err := c.http.Do(req)
	if err != nil {
		out.Err, out.Aborted = err, signalled(in.Abort.Signal)
		return out
	}
	defer func() { _ = res.Body.Close() }()
	out.Headers = time.Now()
	out.Status, out.Proto, out.Header = res.StatusCode, res.Proto, res.Header
	out.read(res.Body, in.Abort, cancel)
	out.Ended = time.Now()
	return out
}

func (c *Client) request(ctx context.Context, in Request) (*http.Request, error) {
	method, path := in.Method, in.Path
	if method == "" {
		method = http.MethodPost
	}
	if path == "" {
		path = "/v1/chat/completions"
	}
	var body io.Reader
	if len(in.Body) > 0 {
		body = bytes.NewReader(in.Body)
		if in.Chunked {
			body = io.MultiReader(body) // hides the length
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/", body)
	if err != nil {
		return nil, err
	}
	req.URL = &url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host}
	req.URL.Path, req.URL.RawQuery, _ = strings.Cut(path, "?")
	if strings.ContainsAny(req.URL.Path, "%\\;") {
		req.URL.Opaque = req.URL.Path // as written, without Go's escaping
	}
	for k, v := range in.Header {
		req.Header[k] = v
	}
	if in.Key != "" {
		req.Header.Set("Authorization", "Bearer "+in.Key)
	}
	switch {
	case in.Type != "":
		req.Header.Set("Content-Type", in.Type)
	case body != nil:
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

func (r *Received) read(body io.Reader, a Abort, cancel func()) {
	stream := strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream")
	buf := make([]byte, 32<<10)
	parsed := 0
	for {
		n, err := body.Read(buf)
		r.Body = append(r.Body, buf[:n]...)
		if stream {
			parsed += r.events(r.Body[parsed:])
		}
		if a.reached(*r) {
			r.Aborted = true
			cancel()
			return
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, io.EOF):
			r.Complete = true
		default:
			r.Err, r.Aborted = err, signalled(a.Signal)
		}
		return
	}
}

// events reads the whole events at the start of b and returns their length.
func (r *Received) events(b []byte) int {
	used := 0
	for {
		rest := b[used:]
		end, width := bytes.Index(rest, []byte("\n\n")), 2
		if i := bytes.Index(rest, []byte("\r\n\r\n")); i >= 0 && (end < 0 || i < end) {
			end, width = i, 4
		}
		if end < 0 {
			return used
		}
		data := strings.TrimPrefix(string(rest[:end]), "data: ")
		r.Events = append(r.Events, Event{Data: data, At: time.Now()})
		r.Done = r.Done || data == "[DONE]"
		used += end + width
	}
}

func (a Abort) reached(r Received) bool {
	return a.Bytes > 0 && len(r.Body) >= a.Bytes ||
		a.Events > 0 && len(r.Events) >= a.Events ||
		a.Done && r.Done ||
		a.When != nil && a.When(r.Events)
}

func signalled(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
