package rig

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Ending says how an exchange with the mock upstream ended.
type Ending string

// The endings of an exchange, as the upstream saw them.
const (
	Running  Ending = "running"
	Finished Ending = "finished" // all bytes written, nobody had left
	Gone     Ending = "gone"     // the peer went away first
	Cut      Ending = "cut"      // ended early because the script said so
)

// Record is what the mock upstream remembers of one request.
type Record struct {
	Seq      int
	At       time.Time // when the request's headers had arrived
	Proto    string
	Method   string
	Path     string // as received, with the query
	Host     string
	Header   http.Header
	BodyHash string // SHA-256, hexadecimal
	BodyLen  int64
	Script   Script
	Ask      Ask
	Sent     int64 // body bytes written
	Ended    Ending
	EndedAt  time.Time // zero while running
}

// Upstream is a scripted model server. It speaks HTTP/1.1 and HTTP/2 without
// TLS on one port.
type Upstream struct {
	// URL is the server's base, for example "http://127.0.0.1:4711".
	URL string

	server *http.Server

	mu        sync.Mutex
	records   []*Record
	released  map[string]bool
	otherwise Script
	changed   chan struct{} // closed and replaced at every change
}

// StartUpstream listens on a free loopback port. Close it when done.
func StartUpstream() (*Upstream, error) { return StartUpstreamAt("127.0.0.1:0") }

// StartUpstreamAt listens on a given host and port. Close it when done.
func StartUpstreamAt(addr string) (*Upstream, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("start mock upstream: %w", err)
	}
	u := &Upstream{URL: "http://" + l.Addr().String(), released: map[string]bool{}, changed: make(chan struct{})}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	u.server = &http.Server{Handler: u, Protocols: protocols, ReadHeaderTimeout: time.Minute}
	go func() { _ = u.server.Serve(l) }()
	return u, nil
}

// Close ends the server and every open connection.
func (u *Upstream) Close() { _ = u.server.Close() }

// Addr is the server's host and port.
func (u *Upstream) Addr() string { return u.URL[len("http://"):] }

// Hits is the number of requests that reached the upstream.
func (u *Upstream) Hits() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.records)
}

// Records returns a copy of all records, in order of arrival.
func (u *Upstream) Records() []Record {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make([]Record, len(u.records))
	for i, r := range u.records {
		out[i] = *r
	}
	return out
}

// ByID returns the records of the requests whose script has that ID.
func (u *Upstream) ByID(id string) []Record {
	var out []Record
	for _, r := range u.Records() {
		if r.Script.ID == id {
			out = append(out, r)
		}
	}
	return out
}

// Wait blocks until ok holds for the records or ctx ends.
func (u *Upstream) Wait(ctx context.Context, ok func([]Record) bool) error {
	for {
		u.mu.Lock()
		changed := u.changed
		u.mu.Unlock()
		if ok(u.Records()) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the mock upstream: %w", ctx.Err())
		}
	}
}

// Release lets the answers go on whose script has that ID and is Held, those
// that are asked for later too.
func (u *Upstream) Release(id string) { u.update(func() { u.released[id] = true }) }

// held waits for the script's release.
func (u *Upstream) held(ctx context.Context, id string) error {
	for {
		u.mu.Lock()
		released, changed := u.released[id], u.changed
		u.mu.Unlock()
		if released {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Otherwise sets the script of requests that bring none, for gateways that do
// not hand on what they do not know.
func (u *Upstream) Otherwise(s Script) { u.update(func() { u.otherwise = s }) }

// update changes a record under the lock and wakes those who wait.
func (u *Upstream) update(change func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	change()
	close(u.changed)
	u.changed = make(chan struct{})
}

// errCut ends an exchange where the script said so.
var errCut = errors.New("the script cuts the answer")

// ServeHTTP answers a request as the script inside it says.
func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &Record{
		At: time.Now(), Proto: r.Proto, Method: r.Method, Path: r.RequestURI, Host: r.Host,
		Header: r.Header.Clone(), Ended: Running,
	}
	body, readErr := io.ReadAll(r.Body)
	sum := sha256.Sum256(body)
	rec.BodyHash, rec.BodyLen = hex.EncodeToString(sum[:]), int64(len(body))
	script, ask := readScript(r, body)
	rec.Ask = ask
	u.update(func() {
		rec.Script = u.otherwise
		if script != nil {
			rec.Script = *script
		}
		rec.Seq = len(u.records)
		u.records = append(u.records, rec)
	})
	err := readErr
	if err == nil {
		err = u.answer(w, r, rec)
	}
	ended := Finished
	switch {
	case errors.Is(err, errCut):
		ended = Cut
	case err != nil || r.Context().Err() != nil:
		ended = Gone
	}
	u.update(func() { rec.Ended, rec.EndedAt = ended, time.Now() })
	if err != nil {
		cut(w, rec.Script.End)
	}
}

// readScript takes the script (nil for none) and what the answer depends on out
// of a request. What cannot be read counts as absent: the rig judges, it does not
// validate.
func readScript(r *http.Request, body []byte) (*Script, Ask) {
	var in struct {
		Model         string `json:"model"`
		Stream        bool   `json:"stream"`
		StreamOptions struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
		Metadata struct {
			Rig *Script `json:"rig"`
		} `json:"metadata"`
	}
	_ = json.Unmarshal(body, &in)
	if h := r.Header.Get("X-Rig"); h != "" {
		_ = json.Unmarshal([]byte(h), &in.Metadata.Rig)
	}
	return in.Metadata.Rig, Ask{
		Path: r.URL.Path, Model: in.Model, Stream: in.Stream, IncludeUsage: in.StreamOptions.IncludeUsage,
	}
}

func (u *Upstream) answer(w http.ResponseWriter, r *http.Request, rec *Record) error {
	s := rec.Script
	if err := pause(r.Context(), s.FirstDelay()); err != nil {
		return err
	}
	if s.Held && s.HeldAfter == 0 {
		if err := u.held(r.Context(), s.ID); err != nil {
			return err
		}
	}
	answer := s.Answer(rec.Ask)
	cuts := s.End == EndReset || s.End == EndClose
	if cuts && s.EndAfter == 0 {
		return errCut // before the headers
	}
	h := w.Header()
	h.Set("Content-Type", answer.ContentType)
	if s.Gzip {
		h.Set("Content-Encoding", "gzip")
	}
	if len(answer.Pieces) == 1 && !rec.Ask.Stream {
		h.Set("Content-Length", fmt.Sprint(len(answer.Pieces[0].Bytes)))
	}
	for k, v := range s.Header {
		h.Set(k, v)
	}
	w.WriteHeader(answer.Status)
	for i, p := range answer.Pieces {
		if cuts && i == s.EndAfter {
			return errCut
		}
		if s.Held && i > 0 && i == s.HeldAfter {
			if err := u.held(r.Context(), s.ID); err != nil {
				return err
			}
		}
		if i > 0 {
			if err := pause(r.Context(), s.ChunkDelay()); err != nil {
				return err
			}
		}
		if err := u.write(w, rec, p.Bytes); err != nil {
			return err
		}
	}
	if cuts {
		return errCut
	}
	return nil
}

// write sends one piece, split as the script says, and flushes every part.
func (u *Upstream) write(w http.ResponseWriter, rec *Record, b []byte) error {
	for len(b) > 0 {
		n := len(b)
		if s := rec.Script.Split; s > 0 && s < n {
			n = s
		}
		m, err := w.Write(b[:n])
		u.update(func() { rec.Sent += int64(m) })
		if err != nil {
			return err
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// cut ends the connection without the answer's end: by RST when the script
// wants it and the connection is ours to take (HTTP/1.1), else as the server
// does it (FIN, or RST_STREAM in HTTP/2).
func cut(w http.ResponseWriter, end EndKind) {
	if end == EndReset {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
			return
		}
	}
	panic(http.ErrAbortHandler) // net/http's documented way to cut an answer
}
